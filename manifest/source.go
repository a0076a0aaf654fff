package manifest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"regexp"
	"slices"
	"strings"
)

// Bounds of what is read.
const (
	MaxFile  = 64 << 10 // bytes of one manifest
	maxTotal = 1 << 20  // bytes of all manifests
	maxKinds = 1_000
)

const suffix = ".yaml"

type file struct {
	name string
	text []byte
}

// readFolder wants the same twice in a row: a folder that somebody is writing to,
// or that is swapped meanwhile, must not give a mixture of two sets.
func readFolder(read func() ([]file, error)) ([]file, error) {
	first, err := read()
	if err != nil {
		return nil, err
	}
	second, err := read()
	if err != nil {
		return nil, err
	}
	alike := func(a, b file) bool { return a.name == b.name && bytes.Equal(a.text, b.text) }
	if !slices.EqualFunc(first, second, alike) {
		return nil, errors.New("the folder changed while it was being read")
	}
	return first, nil
}

// readOnce reads the manifests of a folder, sorted by name, and refuses what
// looks like one and would not be read: a kind whose manifest vanishes without a
// word is a kind without bounds.
func readOnce(dir string) ([]file, error) {
	root, err := os.OpenRoot(dir) // follows symbolic links inside the folder, never out of it
	if err != nil {
		return nil, err
	}
	defer root.Close()
	entries, err := fs.ReadDir(root.FS(), ".") // sorted by name
	if err != nil {
		return nil, err
	}
	var files []file
	total := 0
	for _, e := range entries {
		switch name := e.Name(); {
		case strings.HasPrefix(name, ".."):
			if err := checkMount(root, e, entries); err != nil {
				return nil, err
			}
		case looksRead(name) && !strings.HasSuffix(name, suffix):
			return nil, fmt.Errorf("%s: only names in %s are read; rename the file, or take it away", name, suffix)
		case looksRead(name):
			text, err := readFile(root, name)
			if err != nil {
				return nil, err
			}
			if total += len(text); total > maxTotal {
				return nil, fmt.Errorf("%s: the manifests together are over %d bytes, the most that is loaded", name, maxTotal)
			}
			if files = append(files, file{name, text}); len(files) > maxKinds {
				return nil, fmt.Errorf("%s: over %d manifests, the most that are loaded", name, maxKinds)
			}
		default:
			if err := checkBelow(root, e); err != nil {
				return nil, err
			}
		}
	}
	return files, nil
}

// looksRead reports whether the name says that the file is YAML, in whatever case
// and spelling.
func looksRead(name string) bool {
	ext := strings.ToLower(path.Ext(name))
	return ext == suffix || ext == ".yml"
}

// mounted is the name of a folder in which Kubernetes keeps one version of a
// mounted ConfigMap or Secret (atomic_writer.go of k8s.io/kubernetes).
var mounted = regexp.MustCompile(`^\.\.\d{4}(_\d\d){5}\.\d+$`)

// checkMount lets pass what Kubernetes puts beside the files of a mount: its
// versions, ..data, a link to the one in force, and ..data_tmp, which is about to
// become ..data. Kubernetes turns ..data round first and makes the links to new
// files after it, so each manifest of ..data must be in the folder too: until
// then a new one would not be read.
func checkMount(root *os.Root, e fs.DirEntry, entries []fs.DirEntry) error {
	name, link := e.Name(), e.Type()&fs.ModeSymlink != 0
	switch {
	case e.IsDir() && mounted.MatchString(name), link && name == "..data_tmp":
		return nil
	case !link || name != "..data":
		return fmt.Errorf("%s: names that begin with two dots belong to Kubernetes (..data, ..YYYY_MM_DD_…); rename it, or take it away", name)
	}
	inForce, err := fs.ReadDir(root.FS(), name)
	if err != nil {
		return fmt.Errorf("%s: a link that cannot be followed may hide manifests: %w", name, err)
	}
	for _, f := range inForce {
		there := func(e fs.DirEntry) bool { return e.Name() == f.Name() }
		if looksRead(f.Name()) && !slices.ContainsFunc(entries, there) {
			return fmt.Errorf("%s/%s: there is no link to it in the folder of manifests yet", name, f.Name())
		}
	}
	return nil
}

// checkBelow refuses a sub-folder, or a link to one, that holds manifests at any
// depth, or may: what cannot be looked into.
func checkBelow(root *os.Root, e fs.DirEntry) error {
	dir := e.IsDir()
	if e.Type()&fs.ModeSymlink != 0 {
		info, err := root.Stat(e.Name())
		if err != nil {
			return fmt.Errorf("%s: a link that cannot be followed may hide manifests; take it away: %w", e.Name(), err)
		}
		dir = info.IsDir()
	}
	if !dir {
		return nil
	}
	return fs.WalkDir(root.FS(), e.Name(), func(name string, e fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return fmt.Errorf("%s: a sub-folder that cannot be read may hide manifests; take it away: %w", name, err)
		case looksRead(name):
			return fmt.Errorf("%s: sub-folders are not read; move the file into the folder of manifests itself, or out of it", name)
		case e.Type()&fs.ModeSymlink == 0:
			return nil
		}
		if info, err := root.Stat(name); err != nil || info.IsDir() {
			return fmt.Errorf("%s: a link in a sub-folder may hide manifests; take it away", name)
		}
		return nil
	})
}

func readFile(root *os.Root, name string) ([]byte, error) {
	info, err := root.Stat(name) // before Open, which would wait at a named pipe
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s: not a regular file", name)
	}
	f, err := root.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, MaxFile+1))
	if err != nil {
		return nil, err
	}
	if len(text) > MaxFile {
		return nil, fmt.Errorf("%s: over %d bytes", name, MaxFile)
	}
	return text, nil
}
