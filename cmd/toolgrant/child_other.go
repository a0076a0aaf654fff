//go:build !linux

package main

import (
	"net/netip"
	"syscall"
)

// childAttr has nothing to ask for: only Linux ends a child with its parent.
func childAttr(syscall.Signal) *syscall.SysProcAttr { return &syscall.SysProcAttr{} }

// keepFiles is close enough without the kernel's help: the files that this
// program opens are not a child's (O_CLOEXEC).
func keepFiles() error { return nil }

// ownPeer knows nothing of the other end here: the secret alone says who it is.
func ownPeer(_, _ netip.AddrPort) error { return nil }
