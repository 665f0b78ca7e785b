"""The Unicorn engine: QEMU's translator as a library, and the one place that knows its private layout."""
