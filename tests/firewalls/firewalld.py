"""Loads firewalld's rules as its daemon does at start, without D-Bus: PROGRAM CONFIGURATION [LIBRARIES].

PROGRAM is the root of the unpacked package, CONFIGURATION a directory in the place of /etc/firewalld, and LIBRARIES the
root of another package, for what PROGRAM does not bring itself.
"""

import sys
import types

program, configuration, *libraries = sys.argv[1:]
sys.path[:0] = [f"{root}/usr/lib/python3/dist-packages" for root in [program, *libraries]]

# What asks NetworkManager over D-Bus which interface is in which zone: there is no NetworkManager.
manager = types.ModuleType("firewall.core.fw_nm")
manager.nm_get_bus_name = lambda: None
manager.nm_get_interfaces_in_zone = lambda zone: []
manager.nm_get_zone_of_connection = lambda connection: ""
sys.modules[manager.__name__] = manager

from firewall import config  # noqa: E402

config.set_system_config_paths(configuration)
config.set_default_config_paths(f"{program}/usr/lib/firewalld")
config.FIREWALLD_TEMPDIR = configuration

from firewall.core.fw import Firewall  # noqa: E402

firewall = Firewall()
firewall.start()
state = firewall.get_state()
if state != "RUNNING":
    sys.exit(f"firewalld's state is {state}")
