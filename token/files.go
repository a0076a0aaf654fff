package token

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// openToOthers are the bits that no file or directory of keys may have.
const openToOthers fs.FileMode = 0o077

// repair is an error that ends in the command which repairs it.
func repair(problem string, command ...string) error {
	quoted := make([]string, len(command))
	for i, arg := range command {
		quoted[i] = shellQuote(arg)
	}
	return fmt.Errorf("%s: %s", problem, strings.Join(quoted, " "))
}

func shellQuote(s string) string {
	safe := func(r rune) bool {
		return r < 0x80 && (r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("/._-+:=,@%", r))
	}
	if s != "" && strings.IndexFunc(s, func(r rune) bool { return !safe(r) }) < 0 {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

// replaceLink says how to replace a symbolic link by what it points to.
func replaceLink(path string) error {
	target, err := filepath.EvalSymlinks(path)
	if err != nil {
		return repair(path+" is a symbolic link to nowhere; run", "rm", path)
	}
	return repair(path+" is a symbolic link; put the file itself there", "cp", "--remove-destination", target, path)
}

// makePrivateDir makes dir, with the parents that it lacks, or checks the one
// that is there.
func makePrivateDir(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	return checkPrivateDir(dir)
}

func checkPrivateDir(dir string) error {
	info, err := os.Lstat(dir)
	if err != nil {
		return err
	}
	switch {
	case info.Mode()&fs.ModeSymlink != 0:
		return repair(dir+" is a symbolic link; configure the directory itself, which shows", "readlink", "-f", dir)
	case !info.IsDir():
		return fmt.Errorf("%s is not a directory", dir)
	case info.Mode()&openToOthers != 0:
		return repair(fmt.Sprintf("%s is open to group or others (%#o); run", dir, info.Mode().Perm()), "chmod", "700", dir)
	}
	return nil
}

// privateFiles lists the paths in dir that end in suffix, sorted.
func privateFiles(dir, suffix string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var paths []string
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), suffix) {
			paths = append(paths, filepath.Join(dir, e.Name()))
		}
	}
	return paths, nil
}

// readPrivateFile reads a file of 1 to limit bytes that is nobody else's to
// read or write.
func readPrivateFile(path string, limit int64) ([]byte, error) {
	before, err := os.Lstat(path)
	if err != nil {
		return nil, err
	}
	switch {
	case before.Mode()&fs.ModeSymlink != 0:
		return nil, replaceLink(path)
	case !before.Mode().IsRegular():
		return nil, fmt.Errorf("%s is not a regular file", path)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	// What was opened is what is judged.
	info, err := f.Stat()
	switch {
	case err != nil:
		return nil, err
	case !os.SameFile(before, info):
		return nil, fmt.Errorf("%s was replaced while it was opened", path)
	case info.Mode()&openToOthers != 0:
		return nil, repair(fmt.Sprintf("%s is open to group or others (%#o); if nobody can have read it, run", path, info.Mode().Perm()), "chmod", "600", path)
	}
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	switch {
	case err != nil:
		return nil, err
	case len(data) == 0:
		return nil, repair(path+" is empty; restore it from a copy, or take it away", "rm", path)
	case int64(len(data)) > limit:
		return nil, repair(fmt.Sprintf("%s has over %d bytes; restore it from a copy, or take it away", path, limit), "mv", path, path+".broken")
	}
	return data, nil
}

// createPrivateFile writes a file of mode 0600 that is either absent or whole.
// It never replaces one: fs.ErrExist. (A rename would replace a key that
// another process made in the meantime; a link cannot.)
func createPrivateFile(path string, data []byte) error {
	return writeFile(path, data, 0o600, os.Link)
}

// writePublicFile writes or replaces a file of mode 0644 in one step.
func writePublicFile(path string, data []byte) error {
	return writeFile(path, data, 0o644, os.Rename)
}

func writeFile(path string, data []byte, mode fs.FileMode, publish func(oldpath, newpath string) error) (err error) {
	dir := filepath.Dir(path)
	f, err := os.CreateTemp(dir, ".new-*") // 0600
	if err != nil {
		return err
	}
	defer func() {
		_ = f.Close()
		if e := os.Remove(f.Name()); err == nil && !errors.Is(e, fs.ErrNotExist) {
			err = e
		}
	}()
	if _, err := f.Write(data); err != nil {
		return err
	}
	if err := f.Chmod(mode); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := publish(f.Name(), path); err != nil {
		return err
	}
	return syncDir(dir)
}

// syncDir makes the new name last, without which a crash could lose the key of
// tokens that are out already.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}
