#!/bin/sh
# No kernel changes in this update, so nobody needs a new initramfs.
echo "update-initramfs: left out, no kernel changes"
