"""What a Raspberry Pi 4 says of itself, as far as anything here reads it: files for an emulated board."""

from __future__ import annotations

from pathlib import Path

CORES = 4
GOVERNOR = "ondemand"
FREQUENCY_HZ = 1_500_000_000
TEMPERATURE_C = 48.2
THROTTLED = "0x0"
FEATURES = ("asimd", "cpuid", "crc32", "evtstrm", "fp")

_CORE = f"""\
processor\t: {{core}}
BogoMIPS\t: 108.00
Features\t: {" ".join(FEATURES)}
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x0
CPU part\t: 0xd08
CPU revision\t: 3

"""


def write_pi4(folder: Path) -> None:
    """Write `sys/`, a tree for /sys, and `cpuinfo`, for /proc/cpuinfo."""
    files = {
        "class/thermal/thermal_zone0/type": "cpu-thermal",
        "class/thermal/thermal_zone0/temp": f"{1000 * TEMPERATURE_C:.0f}",
        "devices/platform/soc/soc:firmware/get_throttled": THROTTLED.removeprefix("0x"),
    }
    for name in ("online", "present", "possible"):
        files[f"devices/system/cpu/{name}"] = f"0-{CORES - 1}"
    for core in range(CORES):
        clock = f"devices/system/cpu/cpu{core}/cpufreq"
        files[f"{clock}/scaling_governor"] = GOVERNOR
        for name in ("scaling_cur_freq", "scaling_max_freq", "cpuinfo_max_freq"):
            files[f"{clock}/{name}"] = str(FREQUENCY_HZ // 1000)
    for path, text in files.items():
        file = folder / "sys" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{text}\n")
    (folder / "cpuinfo").write_text("".join(_CORE.format(core=core) for core in range(CORES)))
