"""The bare machine: memory, clocks, instructions, and the engines that execute them. Nothing here knows of Xen."""
