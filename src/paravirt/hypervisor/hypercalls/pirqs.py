"""How many physical interrupts there are by number, although no domain has one.

The numbers are those of a machine with one I/O APIC of 24 lines, as nearly every machine that Xen runs on has.
"""

NR_ISA_IRQS = 16
"""Lines of the ISA bus, which PHYSDEVOP_get_free_pirq gives to nobody."""
NR_GSIS = 24
"""Interrupt lines of the machine (nr_irqs_gsi in xen/arch/x86/irq.c)."""
EXTRA_DOMU_IRQS = 32
"""What an unprivileged domain may have beyond the lines (extra_guest_irqs, docs/misc/xen-command-line.pandoc)."""
NR_PIRQS = NR_GSIS + EXTRA_DOMU_IRQS
"""Physical interrupts that an unprivileged domain can name (domain_create in xen/common/domain.c)."""
