# shellcheck shell=bash
# What nothing inside the test host may do, because the machine's one kernel would do it to the machine:
# set its clock, load modules, touch its hardware, its kernel log or its security policy. Sourced, never run.
forbidden_capabilities=-sys_time,-sys_module,-sys_rawio,-syslog,-mac_admin,-mac_override,-wake_alarm,-block_suspend
