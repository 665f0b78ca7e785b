"""Block devices: images of disks, and the backend that serves them to guests' frontends."""
