package confdir_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/toolgrant/toolgrant/confdir"
)

var testRules = confdir.Rules{
	Suffix:   ".conf",
	Alike:    []string{".cnf"},
	Others:   []confdir.Other{{Name: "who.json", Max: 12}},
	MaxFile:  8,
	MaxTotal: 20,
	MaxFiles: 3,
	Words: confdir.Words{
		Files:      "conf files",
		Content:    "settings",
		Folder:     "conf folder",
		SubFolder:  "sub-folder",
		SubFolders: "sub-folders",
		Advice:     "; write less",
	},
}

const (
	version = "..2026_11_24_12_00_00.1234567"
	link    = "link to " // a text that begins so stands for a symbolic link
)

// folder makes files and links: path, text, path, text. A path that ends in a
// slash is a folder.
func folder(t *testing.T, files ...string) string {
	t.Helper()
	dir := t.TempDir()
	for i := 0; i < len(files); i += 2 {
		name, text := filepath.Join(dir, files[i]), files[i+1]
		err := os.MkdirAll(filepath.Dir(name), 0o700)
		if to, ok := strings.CutPrefix(text, link); ok {
			err = errors.Join(err, os.Symlink(to, name))
		} else if strings.HasSuffix(files[i], "/") {
			err = errors.Join(err, os.Mkdir(name, 0o700))
		} else {
			err = errors.Join(err, os.WriteFile(name, []byte(text), 0o600))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestRead(t *testing.T) {
	for _, tc := range []struct {
		name  string
		files []string
		want  confdir.Contents
	}{
		{"nothing", nil, confdir.Contents{}},
		{"files by name, and others", []string{"b.conf", "B", "a.conf", "", "who.json", "{}"},
			confdir.Contents{Files: []confdir.File{{"a.conf", []byte{}}, {"b.conf", []byte("B")}}, Others: map[string][]byte{"who.json": []byte("{}")}}},
		{"an empty other is there", []string{"who.json", ""}, confdir.Contents{Others: map[string][]byte{"who.json": {}}}},
		{"at the bounds", []string{"a.conf", "12345678", "b.conf", "12345678", "c.conf", "1234", "who.json", "123456789012"},
			confdir.Contents{Files: []confdir.File{{"a.conf", []byte("12345678")}, {"b.conf", []byte("12345678")}, {"c.conf", []byte("1234")}}, Others: map[string][]byte{"who.json": []byte("123456789012")}}},
		{"what is passed over", []string{"README", "far over eight bytes", "a.conf.old", "", "conf", "", "sub/who.json", "", "sub/link", link + "who.json", "other", link + "sub"},
			confdir.Contents{}},
		{"a mount", []string{version + "/a.conf", "A", version + "/who.json", "{}", "..data", link + version, "a.conf", link + "..data/a.conf", "who.json", link + "..data/who.json",
			"..2026_11_24_12_00_01.7/b.conf", "B", "..data_tmp", link + "..2026_11_24_12_00_01.7"},
			confdir.Contents{Files: []confdir.File{{"a.conf", []byte("A")}}, Others: map[string][]byte{"who.json": []byte("{}")}}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, err := testRules.Read(folder(t, tc.files...))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestReadRefuses(t *testing.T) {
	for _, tc := range []struct {
		name  string
		files []string
		want  string // how the error begins
	}{
		{"suffix in another case", []string{"a.Conf", ""}, "a.Conf: only names in .conf are read; rename the file, or take it away"},
		{"suffix alike", []string{"a.CNF", ""}, "a.CNF: only names in .conf are read"},
		{"other in another case", []string{"Who.json", ""}, "Who.json: only the name who.json is read; rename the file, or take it away"},
		{"large file", []string{"a.conf", "123456789"}, "a.conf: over 8 bytes"},
		{"large other", []string{"who.json", "1234567890123"}, "who.json: over 12 bytes"},
		{"large together", []string{"a.conf", "12345678", "b.conf", "12345678", "c.conf", "12345"}, "c.conf: the conf files together are over 20 bytes, the most that is loaded; write less"},
		{"many", []string{"a.conf", "", "b.conf", "", "c.conf", "", "d.conf", ""}, "d.conf: over 3 conf files, the most that are loaded"},
		{"folder named as a file", []string{"a.conf/", ""}, "a.conf: not a regular file"},
		{"other that is a folder", []string{"who.json/", ""}, "who.json: not a regular file"},
		{"two dots", []string{"..a", ""}, "..a: names that begin with two dots belong to Kubernetes (..data, ..YYYY_MM_DD_…); rename it, or take it away"},
		{"..data that is no link", []string{"..data/", ""}, "..data: names that begin with two dots"},
		{"..data to nothing", []string{"..data", link + version}, "..data: a link that cannot be followed may hide settings: "},
		{"new file of a mount", []string{version + "/a.conf", "", "..data", link + version}, "..data/a.conf: there is no link to it in the conf folder yet"},
		{"new other of a mount", []string{version + "/who.json", "", "..data", link + version}, "..data/who.json: there is no link to it in the conf folder yet"},
		{"below", []string{"x/y/a.cONF", ""}, "x/y/a.cONF: sub-folders are not read; move the file into the conf folder itself, or out of it"},
		{"alike below", []string{"x/a.cnf", ""}, "x/a.cnf: sub-folders are not read"},
		{"below a link", []string{version + "/x/a.conf", "", "x", link + version + "/x"}, "x/a.conf: sub-folders are not read"},
		{"link to nothing", []string{"x", link + "gone"}, "x: a link that cannot be followed may hide settings; take it away: "},
		{"link out", []string{"x", link + "/tmp"}, "x: a link that cannot be followed may hide settings; take it away: "},
		{"link to nothing below", []string{"x/link", link + "gone"}, "x/link: a link in a sub-folder may hide settings; take it away"},
		{"link to a folder below", []string{"x/link", link + "../y", "y/README", ""}, "x/link: a link in a sub-folder may hide settings; take it away"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, err := testRules.Read(folder(t, tc.files...))
			if err == nil || !strings.HasPrefix(err.Error(), tc.want) {
				t.Errorf("error %v\ndoes not begin with %s", err, tc.want)
			}
			if got.Files != nil || got.Others != nil {
				t.Errorf("it gives %v with an error", got)
			}
		})
	}
	if _, err := testRules.Read(filepath.Join(t.TempDir(), "gone")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a folder that is not there: %v", err)
	}
}

// A file is followed within the folder alone.
func TestReadStaysInside(t *testing.T) {
	outside := folder(t, "a.conf", "A")
	for name, to := range map[string]string{"a.conf": filepath.Join(outside, "a.conf"), "who.json": "../" + filepath.Base(outside) + "/a.conf"} {
		if got, err := testRules.Read(folder(t, name, link+to)); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}
}

func TestReadBelowThatCannotBeRead(t *testing.T) {
	if os.Getuid() == 0 {
		t.Skip("root reads all")
	}
	dir := folder(t)
	if err := os.Mkdir(filepath.Join(dir, "x"), 0); err != nil {
		t.Fatal(err)
	}
	if _, err := testRules.Read(dir); err == nil || !strings.HasPrefix(err.Error(), "x: a sub-folder that cannot be read may hide settings; take it away: ") {
		t.Error(err)
	}
}

func TestReadWithoutABoundOfFiles(t *testing.T) {
	rules := testRules
	rules.MaxFiles = 0
	got, err := rules.Read(folder(t, "a.conf", "", "b.conf", "", "c.conf", "", "d.conf", ""))
	if err != nil || len(got.Files) != 4 {
		t.Errorf("%v, %v", got, err)
	}
}

func TestTwice(t *testing.T) {
	broken, changed := errors.New("broken"), errors.New("changed")
	for _, tc := range []struct {
		name   string
		values []int
		errs   []error
		want   int
		err    error
	}{
		{"alike", []int{7, 7}, []error{nil, nil}, 7, nil},
		{"changed", []int{7, 8}, []error{nil, nil}, 0, changed},
		{"broken at once", []int{7}, []error{broken}, 0, broken},
		{"broken then", []int{7, 7}, []error{nil, broken}, 0, broken},
	} {
		reads := 0
		got, err := confdir.Twice(func() (int, error) { reads++; return tc.values[reads-1], tc.errs[reads-1] },
			func(a, b int) bool { return a == b }, changed)
		if got != tc.want || !errors.Is(err, tc.err) || reads != len(tc.values) {
			t.Errorf("%s: %d, %v after %d reads", tc.name, got, err, reads)
		}
	}
}
