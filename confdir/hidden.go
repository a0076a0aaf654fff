package confdir

import (
	"fmt"
	"io/fs"
	"regexp"
	"slices"
)

// mounted is the name of a folder in which Kubernetes keeps one version of a
// mounted ConfigMap or Secret (atomic_writer.go of k8s.io/kubernetes).
var mounted = regexp.MustCompile(`^\.\.\d{4}(_\d\d){5}\.\d+$`)

// checkMount lets pass what Kubernetes puts beside the files of a mount: its
// versions, ..data, a link to the one in force, and ..data_tmp, which is about
// to become ..data. Kubernetes turns ..data round first and makes the links to
// new files after it, so each file of ..data must be in the folder too: until
// then a new one would not be read.
func (l *loading) checkMount(e fs.DirEntry) error {
	name, link := e.Name(), e.Type()&fs.ModeSymlink != 0
	switch {
	case e.IsDir() && mounted.MatchString(name), link && name == "..data_tmp":
		return nil
	case !link || name != "..data":
		return fmt.Errorf("%s: names that begin with two dots belong to Kubernetes (..data, ..YYYY_MM_DD_…); rename it, or take it away", name)
	}
	inForce, err := fs.ReadDir(l.root.FS(), name)
	if err != nil {
		return fmt.Errorf("%s: a link that cannot be followed may hide %s: %w", name, l.Words.Content, err)
	}
	for _, f := range inForce {
		there := func(e fs.DirEntry) bool { return e.Name() == f.Name() }
		other := func(o Other) bool { return o.Name == f.Name() }
		if (l.looksRead(f.Name()) || slices.ContainsFunc(l.Others, other)) && !slices.ContainsFunc(l.entries, there) {
			return fmt.Errorf("%s/%s: there is no link to it in the %s yet", name, f.Name(), l.Words.Folder)
		}
	}
	return nil
}

// checkBelow refuses a sub-folder, or a link to one, that holds files to read at
// any depth, or may: what cannot be looked into.
func (l *loading) checkBelow(e fs.DirEntry) error {
	dir, w := e.IsDir(), l.Words
	if e.Type()&fs.ModeSymlink != 0 {
		info, err := l.root.Stat(e.Name())
		if err != nil {
			return fmt.Errorf("%s: a link that cannot be followed may hide %s; take it away: %w", e.Name(), w.Content, err)
		}
		dir = info.IsDir()
	}
	if !dir {
		return nil
	}
	return fs.WalkDir(l.root.FS(), e.Name(), func(name string, e fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return fmt.Errorf("%s: a %s that cannot be read may hide %s; take it away: %w", name, w.SubFolder, w.Content, err)
		case l.looksRead(name):
			return fmt.Errorf("%s: %s are not read; move the file into the %s itself, or out of it", name, w.SubFolders, w.Folder)
		case e.Type()&fs.ModeSymlink == 0:
			return nil
		}
		if info, err := l.root.Stat(name); err != nil || info.IsDir() {
			return fmt.Errorf("%s: a link in a %s may hide %s; take it away", name, w.SubFolder, w.Content)
		}
		return nil
	})
}
