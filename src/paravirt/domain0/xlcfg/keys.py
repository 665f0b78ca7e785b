"""The settings that xl.cfg knows and this version does not act on, and why.

A setting that would change the guest is refused unless its value asks for nothing (an empty list, 0, ...). One that
only concerns fully virtualised guests is passed over with a warning: xl passes over it too, and says nothing.
"""

from __future__ import annotations

from typing import Final

DEVICES: Final = {
    "disk": "virtual disks",
    "vif": "virtual network interfaces",
    "vfb": "virtual framebuffers",
    "vkb": "virtual keyboards",
    "vtpm": "virtual TPMs",
    "p9": "9pfs file systems",
    "pvcalls": "PV calls",
    "vdispl": "virtual displays",
    "vsnd": "virtual sound cards",
    "usbctrl": "virtual USB controllers",
    "usbdev": "virtual USB devices",
}
"""Lists of virtual devices."""

HARDWARE: Final = {
    "pci": "PCI devices",
    "pci_permissive": "PCI devices",
    "pci_msitranslate": "PCI devices",
    "pci_seize": "PCI devices",
    "pci_power_mgmt": "PCI devices",
    "ioports": "I/O ports",
    "iomem": "I/O memory",
    "irqs": "interrupts",
    "rdm": "reserved device memory",
    "dtdev": "devices",
    "gfx_passthru": "graphics",
}
"""The host's hardware, which no guest gets: paravirt is an ordinary program."""

NEUTRAL: Final[dict[str, tuple[str, ...]]] = {
    "bootloader": ("",),
    "bootloader_args": ("",),
    "tsc_mode": ("0", "default"),
    "localtime": ("0",),
    "rtc_timeoffset": ("0",),
    "e820_host": ("0",),
    "driver_domain": ("0",),
    "passthrough": ("disabled",),
    "pvh": ("0",),
    "xend_suspend_evtchn_compat": ("0",),
    "vpmu": ("0",),
    "vmtrace_buf_kb": ("0",),
    "claim_mode": ("0", "1"),
    "nomigrate": ("0", "1"),
    "suppress_spurious_page_faults": ("0", "1"),
    "vuart": ("",),
    "device_tree": ("",),
    "seclabel": ("",),
    "init_seclabel": ("",),
    "device_model_stubdomain_seclabel": ("",),
    "cpuid": ("", "host"),
    "vnuma": (),
    "numa_placement": ("0", "1"),
    "exec": ("",),
    "msr_relaxed": ("0",),
}
"""Settings of paravirtual guests, with the values that ask for nothing that this version does not do."""

LATER: Final = frozenset(
    {
        "localtime", "rtc_timeoffset", "tsc_mode", "cpuid",
    }
)  # fmt: skip
"""Of these, the ones that will come."""

OTHER_GUESTS: Final = frozenset(
    """
    acpi acpi_firmware acpi_laptop_slate acpi_s3 acpi_s4 altp2m altp2mhvm apic bios bios_path_override boot
    cpuid_policy device_model_args device_model_args_hvm device_model_args_pv device_model_override
    device_model_stubdomain_override device_model_user device_model_version dm_restrict firmware gic_version hap
    hdtype hpet keymap mca_caps mmio_hole ms_vm_genid nestedhvm nographic nx oos opengl pae pvshim pvshim_cmdline
    pvshim_extra pvshim_path rdm_mem_boundary sdl serial shadow_memory smbios_firmware soundhw spice spiceagent_mouse
    spice_clipboard_sharing spicedisable_ticketing spicehost spice_image_compression spicepasswd spiceport
    spice_streaming_video spicetls_port spiceusbredirection spicevdagent stdvga stubdomain_cmdline stubdomain_kernel
    stubdomain_memory stubdomain_ramdisk system_firmware tee timer_mode usb usbdevice usbversion vendor_device vga
    videoram viridian vkb_device vnc vncconsole vncdisplay vnclisten vncpasswd vncunused vpt_align xauthority display
    xen_platform_pci colo_checkpoint_host
    """.split()  # noqa: SIM905
)
"""Settings that only other kinds of guest have."""
