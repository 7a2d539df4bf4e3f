#!/bin/sh
# Below the shims: whatever calls the real invoke-rc.d or deb-systemd-invoke by its full path starts
# nothing (101: action forbidden).
exit 101
