// Package confdir reads a folder of configuration files strictly, for rooms in
// which a file that vanishes without a word would loosen something: what is named
// as one of the files and would not be read is an error, and so is what may hide
// one. No link is followed out of the folder, and all that is read is bounded. A
// folder may be a ConfigMap or Secret that Kubernetes mounts.
package confdir

import (
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
)

// Rules say what is read of a folder, and how much. Files of other names are
// passed over, and so are sub-folders that hold none of the files.
type Rules struct {
	Suffix   string   // how the names of files end, as ".yaml"; in another case they are refused
	Alike    []string // suffixes that are refused in any case, as ".yml"
	Others   []Other  // single files that are read too, if they are there
	MaxFile  int64    // bytes of one file
	MaxTotal int64    // bytes of all files; Others do not count
	MaxFiles int      // how many files; 0: as many as MaxTotal allows
	Words    Words
}

// Other is a file of its own name; the name in another case is refused.
type Other struct {
	Name string
	Max  int64 // bytes
}

// Words are what messages call things.
type Words struct {
	Files      string // "policy files"
	Content    string // what they hold, and a link may hide: "policies"
	Folder     string // "policy directory"
	SubFolder  string // "sub-directory"
	SubFolders string // "sub-directories"
	Advice     string // what to do about MaxTotal: "; few policies …"; "": nothing is said
}

// Contents are what a folder holds.
type Contents struct {
	Files  []File            // sorted by name
	Others map[string][]byte // name -> text; only those that are there
}

// File is a file of the folder itself.
type File struct {
	Name string
	Text []byte
}

// Read reads a folder once. An error names what within the folder it is about, or
// is that of os.OpenRoot, for a folder that cannot be opened. A folder that is
// being written to can give a mixture of two states: see Twice.
func (r Rules) Read(dir string) (Contents, error) {
	root, err := os.OpenRoot(dir) // follows symbolic links inside the folder, never out of it
	if err != nil {
		return Contents{}, err
	}
	defer root.Close()
	entries, err := fs.ReadDir(root.FS(), ".") // sorted by name
	if err != nil {
		return Contents{}, err
	}
	l := loading{Rules: r, root: root, entries: entries}
	for _, e := range entries {
		if err := l.take(e); err != nil {
			return Contents{}, err
		}
	}
	return l.got, nil
}

// Twice calls read twice, and wants the same of both: what somebody is writing to,
// or what is swapped meanwhile, must not give a mixture of two states. If it is not
// the same, the error is changed.
func Twice[T any](read func() (T, error), same func(a, b T) bool, changed error) (T, error) {
	var none T
	first, err := read()
	if err != nil {
		return none, err
	}
	second, err := read()
	if err != nil {
		return none, err
	}
	if !same(first, second) {
		return none, changed
	}
	return first, nil
}

// loading is one Read.
type loading struct {
	Rules
	root    *os.Root
	entries []fs.DirEntry // of the folder itself
	got     Contents
	total   int64 // bytes of got.Files
}

// take reads the entry, passes it over, or refuses it.
func (l *loading) take(e fs.DirEntry) error {
	name := e.Name()
	if strings.HasPrefix(name, "..") {
		return l.checkMount(e)
	}
	if l.looksRead(name) {
		if !strings.HasSuffix(name, l.Suffix) {
			return fmt.Errorf("%s: only names in %s are read; rename the file, or take it away", name, l.Suffix)
		}
		return l.file(name)
	}
	for _, o := range l.Others {
		if name == o.Name {
			return l.other(o)
		}
		if strings.EqualFold(name, o.Name) {
			return fmt.Errorf("%s: only the name %s is read; rename the file, or take it away", name, o.Name)
		}
	}
	return l.checkBelow(e)
}

// looksRead reports whether people would take it for one of the files by its name.
func (r Rules) looksRead(name string) bool {
	is := func(suffix string) bool { return strings.EqualFold(path.Ext(name), suffix) }
	return is(r.Suffix) || slices.ContainsFunc(r.Alike, is)
}

func (l *loading) file(name string) error {
	text, err := readFile(l.root, name, l.MaxFile)
	if err != nil {
		return err
	}
	if l.total += int64(len(text)); l.total > l.MaxTotal {
		return fmt.Errorf("%s: the %s together are over %d bytes, the most that is loaded%s", name, l.Words.Files, l.MaxTotal, l.Words.Advice)
	}
	l.got.Files = append(l.got.Files, File{name, text})
	if l.MaxFiles > 0 && len(l.got.Files) > l.MaxFiles {
		return fmt.Errorf("%s: over %d %s, the most that are loaded", name, l.MaxFiles, l.Words.Files)
	}
	return nil
}

func (l *loading) other(o Other) error {
	text, err := readFile(l.root, o.Name, o.Max)
	if err != nil {
		return err
	}
	if l.got.Others == nil {
		l.got.Others = map[string][]byte{}
	}
	l.got.Others[o.Name] = text
	return nil
}

// readFile wants a regular file of at most limit bytes.
func readFile(root *os.Root, name string, limit int64) ([]byte, error) {
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
	text, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(text)) > limit {
		return nil, fmt.Errorf("%s: over %d bytes", name, limit)
	}
	return text, nil
}
