package postgres

import "syscall"

// diesWithParent has the kernel stop the server when this process ends without
// having done so: durable data gets an orderly end.
func diesWithParent(attr *syscall.SysProcAttr, durable bool) {
	attr.Pdeathsig = syscall.SIGQUIT
	if durable {
		attr.Pdeathsig = syscall.SIGINT
	}
}
