package main

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// childAttr has the kernel send the child a signal when this process dies,
// however it dies. The kernel means the thread that started the child: it must
// live as long as the child does (runtime.LockOSThread).
func childAttr(atDeath syscall.Signal) *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Pdeathsig: atDeath}
}

// keepFiles sees to it that a child gets none of this process's files but those
// that are given to it: one of them may be the identity token, opened by the
// shell (--identity-token-file /dev/fd/3).
func keepFiles() error {
	return unix.CloseRange(3, ^uint(0), unix.CLOSE_RANGE_CLOEXEC)
}

// ownPeer reports whether the other end of a TCP connection over loopback is of
// a process of this user. The kernel lists it with its owner for as long as a
// process has the socket; what is not found is nobody's.
func ownPeer(local, remote netip.AddrPort) error {
	uid, err := ownerOf(remote, local)
	if err == nil && uid != os.Geteuid() {
		err = fmt.Errorf("user %d is another one", uid)
	}
	return err
}

var errNoSocket = errors.New("whose socket it is could not be found")

// ownerOf finds the user of an IPv4 socket in /proc/net/tcp or, where a program
// speaks IPv4 by an IPv6 socket, in tcp6. Lines are "sl local_address rem_address
// st … uid timeout inode …" (proc_net_tcp(5)).
func ownerOf(local, remote netip.AddrPort) (int, error) {
	for file, prefix := range map[string]string{
		"/proc/net/tcp":  "",
		"/proc/net/tcp6": procWords([]byte{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff}), // RFC 4291, Section 2.5.5.2
	} {
		uid, err := ownerIn(file, prefix+procAddress(local), prefix+procAddress(remote))
		if !errors.Is(err, errNoSocket) {
			return uid, err
		}
	}
	return 0, errNoSocket
}

func ownerIn(file, local, remote string) (int, error) {
	f, err := os.Open(file)
	if err != nil {
		return 0, errNoSocket // no IPv6 in this kernel
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) <= 9 || fields[1] != local || fields[2] != remote {
			continue
		}
		// Once no process has it, the kernel shows it as root's, without an inode.
		if fields[9] == "0" {
			return 0, errNoSocket
		}
		return strconv.Atoi(fields[7])
	}
	if err := lines.Err(); err != nil {
		return 0, err
	}
	return 0, errNoSocket
}

func procAddress(a netip.AddrPort) string {
	ip := a.Addr().Unmap().As4()
	return fmt.Sprintf("%s:%04X", procWords(ip[:]), a.Port())
}

// procWords writes an address as the kernel does: word by word, each in the
// machine's order of bytes.
func procWords(b []byte) string {
	var out strings.Builder
	for ; len(b) > 0; b = b[4:] {
		fmt.Fprintf(&out, "%08X", binary.NativeEndian.Uint32(b))
	}
	return out.String()
}
