"""Scheduling policies, one a file, behind the protocol that ``policy.pxd`` declares."""
