//go:build !linux

package stage

import "syscall"

// DieWithParent has the kernel end a program when the thread that started it ends,
// where the system can.
func DieWithParent() *syscall.SysProcAttr { return &syscall.SysProcAttr{} }
