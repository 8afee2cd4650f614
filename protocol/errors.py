"""
What can go wrong between two peers, said once.

`ProtocolError`: the peer broke the protocol; what it sent cannot be understood, so its connection is
over. `Refused`: the peer is well-formed but we will not do what it wants; the sentence and the SQLSTATE
go to it verbatim, so neither may hold a secret.
"""


class ProtocolError(Exception):
    """The peer broke the protocol: a bad length, an unknown or misplaced message, a body that does not parse."""


class Refused(Exception):
    """We will not serve this client: `sqlstate`, `sentence`, `detail` and `hint` go to it verbatim.

    `note` is for our log, behind the sentence.
    """

    def __init__(self, sqlstate: str, sentence: str, *, detail: str = "", hint: str = "", note: str = "") -> None:
        super().__init__(sentence)
        self.sqlstate = sqlstate
        self.sentence = sentence
        self.detail = detail
        self.hint = hint
        self.note = note
