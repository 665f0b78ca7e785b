"""The verbs: where each one is, what options it takes, and what it says about itself.

Names, options and what is required are those of xl 4.17 (tools/xl/xl_cmdtable.c); the words are ours.
"""

from __future__ import annotations

from typing import Final, NamedTuple


class Verb(NamedTuple):
    """One verb.

    Attributes:
        name: what is typed.
        where: module and function.
        usage: its arguments; ``summary``, what it does; ``help``, its options.
        short, long: options for getopt_long.
        required: how many arguments there must be.
        dryrun: whether it knows what a dry run is.
    """

    name: str
    where: str
    usage: str
    summary: str
    help: str = ""
    short: str = ""
    long: tuple[tuple[str, str], ...] = ()
    required: int = 0
    dryrun: bool = False

    @property
    def harmless(self) -> bool:
        """Whether it changes nothing: the usage of the others has the global option -f."""
        return self.name in _HARMLESS

    @property
    def synopsis(self) -> str:
        """The line that says how it is used."""
        flags = "" if self.harmless else "fN" if self.dryrun else "f"
        return f"Usage: xl [-vtT{flags}] {self.name} {self.usage}"


_HARMLESS = frozenset(
    ("list", "console", "vcpu-list", "vm-list", "info", "sharing", "domid", "domname", "dmesg", "top", "uptime",
     "claims", "cpupool-list", "block-list", "network-list", "channel-list")
)  # fmt: skip
_CONFIG_HELP = """\
-f FILE, --defconfig=FILE  Read the configuration from FILE ('-' or /dev/stdin: standard input)
-d                         Print the configuration too"""
_MASKS_HELP = """\
-i, --ignore-global-affinity-masks
                           (there are no global masks; changes nothing)"""
_CREATE_HELP = f"""\
-p                         Leave the domain paused
-c                         Attach to its console
-F                         Stay until the domain is gone
-e                         Do nothing at the domain's end
-n, --dryrun               Print the configuration as JSON, and make nothing
-q, --quiet                Say less
{_MASKS_HELP}
{_CONFIG_HELP}"""
_MASKS = ("ignore-global-affinity-masks", "i")
_MEMORY_USAGE = "<Domain> <MemMB['b'[bytes]|'k'[KB]|'m'[MB]|'g'[GB]|'t'[TB]]>"
_SHUTDOWN_HELP = """\
-a, --all                  All domains
-w, --wait                 Wait for the end
-F                         (for fully virtualised guests; changes nothing)"""
_CREDIT_HELP = """\
-d DOMAIN, --domain=DOMAIN       The domain
-w WEIGHT, --weight=WEIGHT       Its weight
-c CAP, --cap=CAP                Its cap, in percent of a physical CPU; 0: none
-s, --schedparam                 The scheduler's own parameters
-t MS, --tslice_ms=MS            Time slice
-r US, --ratelimit_us=US         Rate limit
-m US, --migration_delay_us=US   Migration delay
-p POOL, --cpupool=POOL          Only this pool"""
_CREDIT_LONG = (
    ("domain=", "d"), ("weight=", "w"), ("cap=", "c"), ("schedparam", "s"), ("tslice_ms=", "t"),
    ("ratelimit_us=", "r"), ("migration_delay_us=", "m"), ("cpupool=", "p"),
)  # fmt: skip
_TOP_HELP = """\
-b                         Print samples one after the other
-i N                       Only N samples
-d SECONDS                 Time between samples (3)
-f                         Full names"""

VERBS: Final = (
    Verb("create", "create:create", "<ConfigFile> [options] [vars]", "Make a domain from a configuration file",
         _CREATE_HELP, "Fnqf:pcdeVAi", (("dryrun", "n"), ("quiet", "q"), ("defconfig=", "f"), ("vncviewer", "V"),
                                        ("vncviewer-autopass", "A"), _MASKS), dryrun=True),
    Verb("config-update", "create:config_update", "<Domain> <ConfigFile> [options] [vars]",
         "Give a domain the configuration for its next restart", _CONFIG_HELP, "dqf:", (("defconfig=", "f"),),
         dryrun=True),
    Verb("list", "listing:list_domains", "[options] [Domain]", "List domains",
         "-l, --long                 Configurations, as JSON\n"
         "-v, --verbose              With identifiers and reasons of shutdowns\n"
         "-Z, --context              With security labels\n"
         "-c, --cpupool              With pools of physical CPUs\n"
         "-n, --numa                 With NUMA nodes", "lvZcn",
         (("long", "l"), ("verbose", "v"), ("context", "Z"), ("cpupool", "c"), ("numa", "n"))),
    Verb("destroy", "control:destroy", "[options] <Domain>", "End a domain at once",
         "-f                         Domain 0, too (refused here)", "f", (), 1),
    Verb("shutdown", "control:shutdown", "[options] <-a|Domain>", "Ask a domain to power off", _SHUTDOWN_HELP, "awF",
         (("all", "a"), ("wait", "w"))),
    Verb("reboot", "control:reboot", "[options] <-a|Domain>", "Ask a domain to reboot", _SHUTDOWN_HELP, "awF",
         (("all", "a"), ("wait", "w"))),
    Verb("pause", "control:pause", "<Domain>", "Keep a domain from running", required=1),
    Verb("unpause", "control:unpause", "<Domain>", "Let a paused domain run", required=1),
    Verb("console", "console:console", "[options] <Domain>", "Attach to a domain's console (Ctrl-] leaves)",
         "-t TYPE                    Kind of console: pv\n"
         "-n NUMBER                  Number of the console: 0, or that of a channel",
         "n:t:e:", (("num=", "n"), ("type=", "t"), ("escape=", "e")), 1),
    Verb("mem-max", "memory:mem_max", _MEMORY_USAGE, "Limit a domain's memory", required=2),
    Verb("mem-set", "memory:mem_set", _MEMORY_USAGE, "Have a domain use so much memory", required=2),
    Verb("vcpu-list", "vcpu:vcpu_list", "[Domain, ...]", "List virtual CPUs"),
    Verb("vcpu-pin", "vcpu:vcpu_pin", "[option] <Domain> <VCPU|all> <Hard affinity|-|all> <Soft affinity|-|all>",
         "Say which physical CPUs a virtual CPU may use",
         f"-f, --force                (refused here)\n{_MASKS_HELP}", "fi", (("force", "f"), _MASKS), 3, True),
    Verb("vcpu-set", "vcpu:vcpu_set", "[option] <Domain> <vCPUs>", "Have a domain use so many virtual CPUs",
         "-i, --ignore-host          Also more than there are physical CPUs", "i", (("ignore-host", "i"),), 2),
    Verb("vm-list", "listing:vm_list", "", "List domains with their identifiers"),
    Verb("info", "info:info", "[options] [field]", "Say what the machine is",
         "-n, --numa                 With its topology", "n", (("numa", "n"),)),
    Verb("sharing", "listing:sharing", "[Domain]", "List memory that domains share"),
    Verb("sched-credit", "sched:credit", "[-d <Domain> [-w[=WEIGHT]|-c[=CAP]]] [-s [-t TSLICE] [-r RATELIMIT]] "
         "[-p CPUPOOL]", "Parameters of the credit scheduler", _CREDIT_HELP, "d:w:c:p:t:r:m:s", _CREDIT_LONG),
    Verb("sched-credit2", "sched:credit2", "[-d <Domain> [-w[=WEIGHT]|-c[=CAP]]] [-s [-r RATELIMIT]] [-p CPUPOOL]",
         "Parameters of the credit2 scheduler", _CREDIT_HELP, "d:w:c:p:t:r:m:s", _CREDIT_LONG),
    Verb("sched-rtds", "sched:rtds", "[-d <Domain> [-v[=VCPUID/all]] [-p[=PERIOD]] [-b[=BUDGET]]]",
         "Parameters of the rtds scheduler", "", "d:p:b:v:e:c:",
         (("domain=", "d"), ("period=", "p"), ("budget=", "b"), ("vcpuid=", "v"), ("extratime=", "e"),
          ("cpupool=", "c"))),
    Verb("sched-sedf", "sched:sedf", "[-d <Domain> [-p[=PERIOD]|-s[=SLICE]|-l[=LATENCY]|-e[=EXTRA]|-w[=WEIGHT]]]",
         "Parameters of the SEDF scheduler", "", "d:p:s:l:e:w:c:",
         (("domain=", "d"), ("period=", "p"), ("slice=", "s"), ("latency=", "l"), ("extra=", "e"), ("weight=", "w"),
          ("cpupool=", "c"))),
    Verb("sched-bvt", "sched:bvt", "<Domain> <mcuadv> <warpback> <warpvalue> <warpl> <warpu>",
         "Parameters of the BVT scheduler"),
    Verb("sched-bvt-ctxallow", "sched:bvt_ctxallow", "[<Allowance in ns>]",
         "Context-switch allowance of the BVT scheduler"),
    Verb("block-attach", "block:block_attach", "<Domain> <disk-spec-component(s)>...", "Give a domain a disk",
         required=2, dryrun=True),
    Verb("block-list", "block:block_list", "<Domain(s)>", "List the disks of domains", required=1),
    Verb("block-detach", "block:block_detach", "[option] <Domain> <DevId>", "Take a disk from a domain",
         "-f, --force                Whether the domain lets it go or not", "f", (("force", "f"),), 2),
    Verb("network-attach", "network:network_attach", "<Domain> [type=<type>] [mac=<mac>] [bridge=<bridge>] [ip=<ip>] "
         "[script=<script>] [backend=<BackDomain>] [vifname=<name>] [rate=<rate>]", "Give a domain a network interface",
         required=1, dryrun=True),
    Verb("network-list", "network:network_list", "<Domain(s)>", "List the network interfaces of domains", required=1),
    Verb("network-detach", "network:network_detach", "<Domain> <DevId|mac>", "Take a network interface from a domain",
         required=2),
    Verb("channel-list", "channel:channel_list", "<Domain(s)>", "List the channels of domains", required=1),
    Verb("domid", "listing:domid", "<DomainName>", "The number of a domain", required=1),
    Verb("domname", "listing:domname", "<DomainId>", "The name of a domain", required=1),
    Verb("rename", "control:rename", "<Domain> <NewDomainName>", "Give a domain another name", required=2),
    Verb("trigger", "control:trigger", "<Domain> <nmi|reset|init|power|sleep|s3resume> [<VCPU>]",
         "Send a domain a trigger", required=2),
    Verb("sysrq", "control:sysrq", "<Domain> <letter>", "Press a magic SysRq key of a domain", required=2),
    Verb("debug-keys", "info:debug_keys", "<Keys>", "Have the hypervisor print things (see dmesg)", required=1),
    Verb("dmesg", "info:dmesg", "[-c]", "Print the hypervisor's messages",
         "-c, --clear                And forget them", "c", (("clear", "c"),)),
    Verb("top", "top:top", "[options]", "Watch the domains", _TOP_HELP, "bi:d:f",
         (("batch", "b"), ("iterations=", "i"), ("delay=", "d"), ("full-name", "f"))),
    Verb("uptime", "listing:uptime", "[-s] [Domain]", "How long domains have run",
         "-s                         In short", "s"),
    Verb("claims", "listing:claims", "", "List memory that domains have claimed"),
    Verb("cpupool-list", "pools:cpupool_list", "[-c|--cpus] [<CPU Pool>]", "List pools of physical CPUs",
         "-c, --cpus                 With their CPUs", "c", (("cpus", "c"),)),
    Verb("cpupool-create", "pools:cpupool_create", "[options] [<ConfigFile>] [Variable=value ...]",
         "Make a pool of physical CPUs",
         "-f FILE, --defconfig=FILE  The configuration file\n"
         "-n, --dryrun               Only say what would be made", "nf:", (("defconfig=", "f"), ("dryrun", "n")),
         dryrun=True),
    Verb("cpupool-destroy", "pools:cpupool_destroy", "<CPU Pool>", "End a pool", required=1),
    Verb("cpupool-rename", "pools:cpupool_rename", "<CPU Pool> <new name>", "Give a pool another name", required=2),
    Verb("cpupool-cpu-add", "pools:cpupool_cpu_add", "<CPU Pool> <CPU nr>|node:<node nr>",
         "Put free physical CPUs into a pool", required=2),
    Verb("cpupool-cpu-remove", "pools:cpupool_cpu_remove", "<CPU Pool> <CPU nr>|node:<node nr>",
         "Take physical CPUs out of a pool", required=2),
    Verb("cpupool-migrate", "pools:cpupool_migrate", "<Domain> <CPU Pool>", "Move a domain into a pool", required=2),
    Verb("cpupool-numa-split", "pools:cpupool_numa_split", "", "Make a pool of each NUMA node, of which there is one"),
)  # fmt: skip

NOT_YET: Final = {
    "save": "saving domains",
    "restore": "restoring domains",
    "migrate": "migrating domains",
    "migrate-receive": "migrating domains",
    "remus": "high availability",
    "dump-core": "dumping core",
}
"""Verbs that this version does not have yet, and what they are about."""

NEVER: Final = {
    **dict.fromkeys(
        ("pci-attach", "pci-detach", "pci-list", "pci-assignable-add", "pci-assignable-remove", "pci-assignable-list",
         "usbctrl-attach", "usbctrl-detach", "usbdev-attach", "usbdev-detach", "usb-list", "psr-hwinfo",
         "psr-cmt-attach", "psr-cmt-detach", "psr-cmt-show", "psr-cat-set", "psr-cat-show", "psr-mba-set",
         "psr-mba-show"),
        "is about the host's hardware, and paravirt is an ordinary program",
    ),
    **dict.fromkeys(
        ("vncviewer", "cd-insert", "cd-eject", "button-press", "qemu-monitor-command"),
        "is for fully virtualised guests, and there are none",
    ),
    **dict.fromkeys(
        ("vtpm-attach", "vtpm-list", "vtpm-detach", "vkb-attach", "vkb-list", "vkb-detach",
         "vdispl-attach", "vdispl-list", "vdispl-detach", "vsnd-attach", "vsnd-list", "vsnd-detach"),
        "is about a kind of device that paravirt does not have",
    ),
    **dict.fromkeys(("getenforce", "setenforce", "loadpolicy"), "is about a security module that is not built in"),
    "set-parameters": "would change the hypervisor's command line, which has no parameters that change",
    "devd": "is not needed: the daemon serves its own devices",
}  # fmt: skip
"""Verbs that paravirt does not have, and why."""


def names() -> list[str]:
    """All verbs that xl knows."""
    return [verb.name for verb in VERBS] + list(NOT_YET) + list(NEVER)


def find(word: str) -> str | None:
    """The verb that a word means: its name, or the only one that begins so."""
    known = names()
    if word in known:
        return word
    begun = [name for name in known if name.startswith(word)]
    return begun[0] if len(begun) == 1 else None
