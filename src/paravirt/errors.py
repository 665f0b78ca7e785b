"""Errors, sorted by blame.

Three parties can be at fault, and each failure is treated according to whose it is:

* the guest: :class:`GuestError` crashes that domain alone, and its report is kept;
* the user: :class:`UserError` is one clear sentence and exit status 2;
* paravirt itself: :class:`HypervisorBug` says so loudly, and the other domains go on.
"""

from __future__ import annotations


class ParavirtError(Exception):
    """The root of everything that paravirt raises on purpose."""


class UserError(ParavirtError):
    """The person at the keyboard (or the calling program) asked for something that cannot be had.

    The message is one complete sentence, fit to be printed as it stands.
    """


class GuestError(ParavirtError):
    """A domain did something that ends it; nobody else may notice."""


class HypervisorBug(ParavirtError):
    """paravirt broke one of its own rules. Please report it."""
