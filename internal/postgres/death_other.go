//go:build !linux

package postgres

import "syscall"

// diesWithParent does nothing here: only Linux has a parent-death signal. The
// next start on the directory, or Sweep, ends what was left.
func diesWithParent(*syscall.SysProcAttr, bool) {}
