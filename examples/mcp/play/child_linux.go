package main

import "syscall"

// childAttr puts a child into a group of its own and has the kernel end it when
// the play is killed.
func childAttr() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
