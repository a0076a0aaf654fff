package main

import "syscall"

// childAttr has the kernel send the child a signal when this process dies,
// however it dies. The kernel means the thread that started the child: it must
// live as long as the child does (runtime.LockOSThread).
func childAttr(atDeath syscall.Signal) *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Pdeathsig: atDeath}
}
