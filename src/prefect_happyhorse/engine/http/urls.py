"""Fingerprints of input media: by content where the bytes are known, else by the address without its signature."""

from __future__ import annotations

import re
from urllib.parse import unquote_plus, urlsplit, urlunsplit

__all__ = ["content_fingerprint", "stable_url", "url_fingerprint"]

# Signed addresses change with every signing while the file stays the same. The names are those of
# https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-query-string-auth.html (X-Amz-*, and AWSAccessKeyId before it),
# https://docs.aws.amazon.com/AmazonCloudFront/latest/DeveloperGuide/private-content-signed-urls.html (Policy, Key-Pair-Id),
# https://cloud.google.com/storage/docs/access-control/signed-urls (X-Goog-*, and GoogleAccessId before it),
# https://www.alibabacloud.com/help/en/oss/developer-reference/ddd-signatures-to-urls (OSSAccessKeyId, x-oss-*),
# https://cloud.tencent.com/document/product/436/7778 (q-*) and https://www.volcengine.com/docs/6349/129223 (X-Tos-*).
# Names such as x-oss-process change the picture itself, so only what belongs to a signature is listed.
_SIGNATURE_NAMES = re.compile(
    r"x-(amz|goog|tos|obs|bce)-(algorithm|credential|date|expires|signedheaders|signedqueries|policy|signature|security-token)"
    r"|x-oss-(credential|date|expires|signature|signature-version|additional-headers|security-token)"
    r"|x-amz-content-sha256|x-cos-security-token|q-(sign-algorithm|ak|sign-time|key-time|header-list|url-param-list|signature)"
    r"|ossaccesskeyid|awsaccesskeyid|googleaccessid|accesskeyid|key-pair-id|signature|x-signature|hmac",
    re.IGNORECASE,
)
# These mean a signature only beside one of the above: "expires" or "policy" alone may well name the file.
_BESIDE_SIGNATURE = re.compile(r"expires|policy|security-token|versioned-signature|hash-algorithm", re.IGNORECASE)
# https://learn.microsoft.com/rest/api/storageservices/create-service-sas and create-user-delegation-sas
_AZURE_NAMES = re.compile(r"s[vrpteis]|ss|srt|sip|spr|sig|sdd|ses|saoid|suoid|scid|skoid|sktid|skt|ske|sks|skv|skdutid|sduoid")
# A token beside a path that names a file is a permission; elsewhere ("/download?token=...") it may be what names the file.
_TOKEN_NAMES = re.compile(r"((access|auth|security|session)[_-]?)?token|auth([_-]?key)?|sign|sig|jwt|api[_-]?key", re.IGNORECASE)
_FILE_NAME = re.compile(r"\.(jpe?g|png|webp|bmp|gif|mp4|m4v|mov|webm|mp3|wav)$", re.IGNORECASE)


def content_fingerprint(sha256: str) -> str:
    """The fingerprint of a medium whose bytes are known.

    Example:
        >>> content_fingerprint("AB12")
        'sha256:ab12'
    """
    return f"sha256:{sha256.lower()}"


def url_fingerprint(url: str) -> str:
    """The fingerprint of a medium that is known by its address alone.

    Example:
        >>> url_fingerprint("https://example.com/horse.png?X-Amz-Signature=1&width=512")
        'url:https://example.com/horse.png?width=512'
    """
    return f"url:{stable_url(url)}"


def stable_url(url: str) -> str:
    """An address without what changes from one signing to the next, and without anything secret that a signature carries.

    Example:
        >>> stable_url("HTTPS://user:pw@Example.com/a/horse.png?v=2&Expires=1&OSSAccessKeyId=k&Signature=s#top")
        'https://example.com/a/horse.png?v=2'
    """
    try:
        parts = urlsplit(url)
    except ValueError:
        # Not valid, such as http://[::1, yet errors have to name it; what may be secret in it is dropped.
        return re.sub(r"//[^/]*@", "//", re.split(r"[?#]", url)[0])
    host = parts.netloc.rpartition("@")[2].lower()
    pairs = parts.query.split("&") if parts.query else []
    names = [unquote_plus(pair.partition("=")[0]) for pair in pairs]
    dropped = _dropped(names, parts.path)
    query = "&".join(pair for pair, name in zip(pairs, names, strict=True) if name.lower() not in dropped)
    return urlunsplit((parts.scheme.lower(), host, parts.path or "/", query, ""))


def _dropped(names: list[str], path: str) -> frozenset[str]:
    """The names, in lower case, of the parameters that belong to a signature."""
    lower = {name.lower() for name in names}
    dropped = {name for name in lower if _SIGNATURE_NAMES.fullmatch(name)}
    if "sig" in lower and lower & {"sv", "se", "sp"}:
        dropped |= {name for name in lower if _AZURE_NAMES.fullmatch(name)}
    if _FILE_NAME.search(path):
        dropped |= {name for name in lower if _TOKEN_NAMES.fullmatch(name)}
    if dropped:
        dropped |= {name for name in lower if _BESIDE_SIGNATURE.fullmatch(name)}
    return frozenset(dropped)
