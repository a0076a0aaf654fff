//go:build !linux

package main

import "syscall"

// childAttr has nothing to ask for: only Linux ends a child with its parent.
func childAttr(syscall.Signal) *syscall.SysProcAttr { return &syscall.SysProcAttr{} }
