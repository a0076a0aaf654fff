package cedar

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/toolgrant/toolgrant/manifest"
)

// Whatever can change what manifests say, or that they load, changes the
// fingerprint; what does not, the times of files, does not.
func TestTree(t *testing.T) {
	outside := dir(t, "x.yaml", mayPay)
	write := func(name, text string) func(string) error {
		return func(d string) error { return os.WriteFile(filepath.Join(d, name), []byte(text), 0o600) }
	}
	for name, change := range map[string]func(d string) error{
		"a text of the same length": write("work.yaml", strings.Replace(mayPay, "pay", "pya", 1)),
		"one file more":             write("more.yaml", ""),
		"one file less":             func(d string) error { return os.Remove(filepath.Join(d, "work.yaml")) },
		"another name":              func(d string) error { return os.Rename(filepath.Join(d, "work.yaml"), filepath.Join(d, "work.yml")) },
		"a file deep down":          write("sub/x.yaml", mayPay),
		"a folder":                  func(d string) error { return os.Mkdir(filepath.Join(d, "x"), 0o700) },
		"a folder for a file": func(d string) error {
			return errors.Join(os.Remove(filepath.Join(d, "work.yaml")), os.Mkdir(filepath.Join(d, "work.yaml"), 0o700))
		},
		"a pipe":            func(d string) error { return syscall.Mkfifo(filepath.Join(d, "x.yaml"), 0o600) },
		"a link to nothing": func(d string) error { return os.Symlink("gone", filepath.Join(d, "x.yaml")) },
		"a link out":        func(d string) error { return os.Symlink(filepath.Join(outside, "x.yaml"), filepath.Join(d, "x.yaml")) },
		"what a link is to": func(d string) error {
			return errors.Join(os.Remove(filepath.Join(d, "link.yaml")), os.Symlink("README", filepath.Join(d, "link.yaml")))
		},
		"behind a link": write("target", "kind: other"),
		"where a link leads, to what is alike": func(d string) error {
			return errors.Join(os.Remove(filepath.Join(d, "..data")), os.Symlink("sub/.", filepath.Join(d, "..data")))
		},
		"the folder is gone": os.RemoveAll,
		"past the bound":     write("large", strings.Repeat("x", manifest.MaxFile+3)),
	} {
		t.Run(name, func(t *testing.T) {
			d := filepath.Join(t.TempDir(), "manifests")
			if err := os.Rename(dir(t, "work.yaml", mayPay, "README", "x", "target", "", "large", strings.Repeat("x", manifest.MaxFile+2)), d); err != nil {
				t.Fatal(err)
			}
			if err := errors.Join(os.Mkdir(filepath.Join(d, "sub"), 0o700), os.Symlink("target", filepath.Join(d, "link.yaml")), os.Symlink("sub", filepath.Join(d, "..data"))); err != nil {
				t.Fatal(err)
			}
			before := treeOf(d)
			old := time.Unix(0, 0)
			if err := os.Chtimes(filepath.Join(d, "work.yaml"), old, old); err != nil {
				t.Fatal(err)
			}
			if again := treeOf(d); again != before {
				t.Error("it changes by itself, or with a time")
			}
			if err := change(d); err != nil {
				t.Fatal(err)
			}
			if treeOf(d) == before {
				t.Error("the change does not show")
			}
		})
	}
	if treeOf("") != (fingerprint{}) || treeOf(outside) == (fingerprint{}) {
		t.Error("no folder has a fingerprint, or one has none")
	}
}
