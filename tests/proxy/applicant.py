"""
Somebody who logs in by SCRAM to a proxy, message by message: his side of it, over the fake socket of test_doorstep.

`say` hands over bytes as the event loop would, in one piece or in those asked for. What he hears is taken off message
by message, so a test says what stands where; `heard` is what he has not looked at yet.
"""

from protocol.backend import build_authentication_ok
from protocol.frontend import build_sasl_initial, build_sasl_response
from protocol.passwords import ScramKeys, Secret, derive_salted_password
from protocol.scram import MECHANISM, ScramClient
from tests.proxy.test_doorstep import Door, turns

ADDRESS = ("10.0.0.7", 51234)
OK = build_authentication_ok()


class Applicant:
    """`hello` is his startup packet. His nonce is always the same, so that two runs can be compared."""

    def __init__(self, proxy, hello, password="secret", address=ADDRESS, nonce="n" * 24):
        self.hello = hello
        self.door = Door(proxy, address)
        self._password = Secret(password)
        self._client = ScramClient(nonce=nonce)
        self._read = 0

    @property
    def phase(self):
        return self.door.phase

    @property
    def heard(self):
        return self.door.written[self._read :]

    def take(self):
        """The next message he has heard: its type, its body."""
        message = self.heard
        size = 1 + int.from_bytes(message[1:5])
        assert len(message) >= size > 1, message
        self._read += size
        return message[:1], message[5:size]

    async def say(self, data, piece=None):
        """All at once, or so many bytes at a time."""
        for at in range(0, len(data), piece or len(data)):
            self.door.phase.data_received(data[at : at + (piece or len(data))])
            if piece:
                await turns(2)
        await turns(3)

    def initial(self):
        return build_sasl_initial(MECHANISM, self._client.first())

    def proof(self, challenge):
        """For the body of the challenge."""
        asked = self._client.challenge(challenge[4:])
        salted = derive_salted_password(self._password, asked.salt, asked.iterations)
        return build_sasl_response(self._client.proof(ScramKeys.from_salted_password(salted)))

    async def log_in(self, piece=None):
        """The whole of it: what he has heard from the last message of the exchange on."""
        await self.say(self.hello, piece)
        kind, body = self.take()
        assert (kind, body[:4]) == (b"R", b"\0\0\0\x0a"), "asked by SASL"
        await self.say(self.initial(), piece)
        kind, body = self.take()
        assert (kind, body[:4]) == (b"R", b"\0\0\0\x0b"), "challenged"
        await self.say(self.proof(body), piece)
        await turns()
        return self.heard

    def check_welcome(self):
        """He is in, and the server has proven that it knows him."""
        kind, body = self.take()
        assert (kind, body[:4]) == (b"R", b"\0\0\0\x0c"), body
        self._client.check_final(body[4:])
        assert self.heard.startswith(OK), self.heard
        assert self.heard.endswith(b"Z\0\0\0\x05I")
