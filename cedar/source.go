package cedar

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
	"unicode/utf8"

	"github.com/toolgrant/toolgrant/manifest"
)

// Bounds of what is read. All are far above what people write and far below
// what hurts.
const (
	maxFile     = 256 << 10 // bytes of one policy file
	maxTotal    = 1 << 20   // bytes of all policy files
	maxEntities = 1 << 20   // bytes of entities.json
	maxPolicies = 10_000
	maxNesting  = 64      // brackets within brackets
	maxTokens   = 1 << 14 // of one policy
	maxLinks    = 64      // names joined by dots
)

const (
	entitiesFile = "entities.json"
	policySuffix = ".cedar"
)

// source is the text of a policy directory, and the manifests beside it.
type source struct {
	policies  []file // sorted by name
	entities  []byte // nil: there is no entities.json
	tree      fingerprint
	manifests *manifest.Set // of tree; nil: none, or not loaded yet
}

type file struct {
	name string
	text []byte
}

func readSource(cfg Config) (source, error) {
	return readTwice(func() (source, error) { return readOnce(cfg) })
}

func readOnce(cfg Config) (source, error) {
	src, err := readDir(cfg.Dir)
	src.tree = treeOf(cfg.Manifests)
	return src, err
}

var errChanged = errors.New("the directory, or that of the manifests, changed while it was being read")

// addManifests loads the manifests that the source is of, and no others.
func (s *source) addManifests(cfg Config) error {
	if cfg.Manifests == "" {
		return nil
	}
	m, err := manifest.Load(cfg.Manifests, cfg.Catalog)
	if err == nil && treeOf(cfg.Manifests) != s.tree {
		err = errChanged
	}
	if err != nil {
		return fmt.Errorf("loading manifests from %s: %w", cfg.Manifests, err)
	}
	s.manifests = m
	return nil
}

// readTwice wants the same twice in a row, of policies and manifests together: a
// directory that somebody is writing to, or that is swapped meanwhile, must not
// give a mixture of two sets.
func readTwice(read func() (source, error)) (source, error) {
	first, err := read()
	if err != nil {
		return source{}, err
	}
	second, err := read()
	if err != nil {
		return source{}, err
	}
	if !first.equal(second) {
		return source{}, errChanged
	}
	return first, nil
}

func (s source) equal(o source) bool {
	if len(s.policies) != len(o.policies) || !bytes.Equal(s.entities, o.entities) || s.tree != o.tree {
		return false
	}
	for i, f := range s.policies {
		if f.name != o.policies[i].name || !bytes.Equal(f.text, o.policies[i].text) {
			return false
		}
	}
	return true
}

// readDir reads the policy files, and refuses what looks like one and would not
// be read: a forbid must not vanish without a word.
func readDir(dir string) (source, error) {
	root, err := os.OpenRoot(dir) // follows symbolic links inside the directory, never out of it
	if err != nil {
		return source{}, err
	}
	defer root.Close()
	entries, err := fs.ReadDir(root.FS(), ".") // sorted by name
	if err != nil {
		return source{}, err
	}
	var src source
	total := 0
	for _, e := range entries {
		switch name := e.Name(); {
		case strings.HasPrefix(name, ".."):
			if err := checkMount(root, e, entries); err != nil {
				return source{}, err
			}
		case isPolicy(name) && !strings.HasSuffix(name, policySuffix):
			return source{}, fmt.Errorf("%s: only names in %s are read; rename the file, or take it away", name, policySuffix)
		case name != entitiesFile && strings.EqualFold(name, entitiesFile):
			return source{}, fmt.Errorf("%s: only the name %s is read; rename the file, or take it away", name, entitiesFile)
		case name == entitiesFile:
			if src.entities, err = readFile(root, name, maxEntities); err != nil {
				return source{}, err
			}
		case isPolicy(name):
			text, err := readFile(root, name, maxFile)
			if err != nil {
				return source{}, err
			}
			if total += len(text); total > maxTotal {
				return source{}, fmt.Errorf("%s: the policy files together are over %d bytes, the most that is loaded; few policies about sets and groups say more than many about each tool", name, maxTotal)
			}
			src.policies = append(src.policies, file{name, text})
		default:
			if err := checkBelow(root, e); err != nil {
				return source{}, err
			}
		}
	}
	if len(src.policies) == 0 {
		return source{}, fmt.Errorf("%s holds no *.cedar file: with no policy nothing could ever be permitted", dir)
	}
	return src, nil
}

// isPolicy reports whether the name says that the file holds policies, in
// whatever case.
func isPolicy(name string) bool { return strings.EqualFold(path.Ext(name), policySuffix) }

// mounted is the name of a folder in which Kubernetes keeps one version of a
// mounted ConfigMap or Secret (atomic_writer.go of k8s.io/kubernetes).
var mounted = regexp.MustCompile(`^\.\.\d{4}(_\d\d){5}\.\d+$`)

// checkMount lets pass what Kubernetes puts beside the files of a mount: its
// versions, ..data, a link to the one in force, and ..data_tmp, which is about
// to become ..data. Kubernetes turns ..data round first and makes the links to
// new files after it, so each policy file of ..data must be in the directory
// too: until then a new forbid would not be read.
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
		return fmt.Errorf("%s: a link that cannot be followed may hide policies: %w", name, err)
	}
	for _, f := range inForce {
		there := func(e fs.DirEntry) bool { return e.Name() == f.Name() }
		if (isPolicy(f.Name()) || f.Name() == entitiesFile) && !slices.ContainsFunc(entries, there) {
			return fmt.Errorf("%s/%s: there is no link to it in the policy directory yet", name, f.Name())
		}
	}
	return nil
}

// checkBelow refuses a sub-directory, or a link to one, that holds policies at
// any depth, or may: what cannot be looked into.
func checkBelow(root *os.Root, e fs.DirEntry) error {
	dir := e.IsDir()
	if e.Type()&fs.ModeSymlink != 0 {
		info, err := root.Stat(e.Name())
		if err != nil {
			return fmt.Errorf("%s: a link that cannot be followed may hide policies; take it away: %w", e.Name(), err)
		}
		dir = info.IsDir()
	}
	if !dir {
		return nil
	}
	return fs.WalkDir(root.FS(), e.Name(), func(name string, e fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return fmt.Errorf("%s: a sub-directory that cannot be read may hide policies; take it away: %w", name, err)
		case isPolicy(name):
			return fmt.Errorf("%s: sub-directories are not read; move the file into the policy directory itself, or out of it", name)
		case e.Type()&fs.ModeSymlink == 0:
			return nil
		}
		if info, err := root.Stat(name); err != nil || info.IsDir() {
			return fmt.Errorf("%s: a link in a sub-directory may hide policies; take it away", name)
		}
		return nil
	})
}

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

// checkText bounds a policy file before cedar-go parses it. Its parser,
// compiler, validator and evaluator recurse by nesting and by the length of a
// chain (!!!…, a && b && …, if … else if …) without a limit, and a Go stack
// overflow cannot be recovered. "has a.b.c…" costs the validator the cube of its
// length (1,600 names: a second). Tokens are counted as its scanner cuts them or
// finer. What it reads otherwise than Cedar's grammar does, and so hides
// policies from one of the two, is refused: block comments and bare carriage
// returns.
func checkText(f file) error {
	if !utf8.Valid(f.text) {
		return fmt.Errorf("%s: not UTF-8", f.name)
	}
	var nesting, tokens, links int
	var last byte // first byte of the token before
	for i := 0; i < len(f.text); {
		start := i
		refuse := func(format string, args ...any) error {
			return fmt.Errorf("%s:%d: %w", f.name, lineAt(f.text, start), fmt.Errorf(format, args...))
		}
		switch c := f.text[i]; {
		case c == 0:
			return refuse("NUL byte")
		case c == '\r' && !bytes.HasPrefix(f.text[i:], []byte("\r\n")):
			return refuse("carriage return without a line feed")
		case c == ' ' || c == '\t' || c == '\n' || c == '\r':
			i++
			continue
		case bytes.HasPrefix(f.text[i:], []byte("/*")):
			return refuse("block comment: Cedar has // comments only")
		case bytes.HasPrefix(f.text[i:], []byte("//")):
			for i < len(f.text) && f.text[i] != '\n' {
				if f.text[i] == '\r' && !bytes.HasPrefix(f.text[i:], []byte("\r\n")) {
					return refuse("carriage return without a line feed")
				}
				i++
			}
			continue
		case c == '"':
			var err error
			if i, err = skipString(f.text, i); err != nil {
				return refuse("%w", err)
			}
		case isWord(c):
			for i < len(f.text) && isWord(f.text[i]) {
				i++
			}
		default:
			i++
			switch c {
			case '(', '[', '{':
				nesting++
			case ')', ']', '}':
				nesting--
			}
		}
		if tokens++; f.text[start] == ';' {
			tokens = 0
		}
		if f.text[start] == '.' {
			links++
		} else if last != '.' {
			links = 0
		}
		last = f.text[start]
		if links > maxLinks {
			return refuse("more than %d names joined by dots", maxLinks)
		}
		if nesting > maxNesting {
			return refuse("brackets nest deeper than %d", maxNesting)
		}
		if tokens > maxTokens {
			return refuse("a policy of more than %d tokens", maxTokens)
		}
	}
	return nil
}

func isWord(c byte) bool {
	return c == '_' || c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
}

var errString = errors.New("string without an end on its line")

// skipString returns the index after the string literal that begins at i.
func skipString(text []byte, i int) (int, error) {
	for i++; i < len(text); i++ {
		switch text[i] {
		case '\\':
			i++ // whatever is escaped, a quote too
		case '"':
			return i + 1, nil
		case '\n', '\r':
			return i, errString
		}
	}
	return i, errString
}

// lineAt is the number of the line, from 1, that the offset lies in.
func lineAt(text []byte, offset int) int {
	return 1 + bytes.Count(text[:min(offset, len(text))], []byte("\n"))
}
