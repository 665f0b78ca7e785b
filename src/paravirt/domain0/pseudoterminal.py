"""Pseudo terminals, as consoles and channels have them for programs of the host's."""

from __future__ import annotations

import os
import tty


class PseudoTerminal:
    """One pseudo terminal, raw.

    Attributes:
        near: our end, which never blocks.
        far: the other one. We hold it so that the terminal, and what is in it, stays while nobody else has it open.
        path: the name by which others open it.
    """

    def __init__(self) -> None:
        self.near, self.far = os.openpty()
        tty.setraw(self.far)
        os.set_blocking(self.near, False)
        self.path = os.ttyname(self.far)

    def close(self) -> None:
        """Give it back to the host."""
        os.close(self.near)
        os.close(self.far)
