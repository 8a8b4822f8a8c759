"""Pictures and videos of the sandbox: checking those that come in, making those that go out."""
