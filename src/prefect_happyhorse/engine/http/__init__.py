"""Calls to gateways: the client, who may be called, how often, and with which key."""
