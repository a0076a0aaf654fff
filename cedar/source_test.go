package cedar

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// version is a folder's name as Kubernetes gives it to a version of a mount.
const version = "..2026_11_24_12_00_00.1234567"

// mount writes files as Kubernetes mounts a ConfigMap of them.
func mount(t testing.TB, files ...string) string {
	t.Helper()
	d := t.TempDir()
	if err := errors.Join(os.Mkdir(filepath.Join(d, version), 0o700), os.Symlink(version, filepath.Join(d, "..data"))); err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(files); i += 2 {
		if err := errors.Join(os.WriteFile(filepath.Join(d, version, files[i]), []byte(files[i+1]), 0o600),
			os.Symlink("..data/"+files[i], filepath.Join(d, files[i]))); err != nil {
			t.Fatal(err)
		}
	}
	return d
}

func TestDirectory(t *testing.T) {
	outside := dir(t, "out.cedar", permitAll)
	load := func(d string) error {
		_, err := Load(Config{Dir: d, Catalog: testCatalog(t)})
		return err
	}
	refused := func(name string, make func(d string) error, part string) {
		t.Run(name, func(t *testing.T) {
			d := dir(t, "p.cedar", `@id("first") permit (principal, action, resource);`)
			if err := load(d); err != nil {
				t.Fatal(err)
			}
			if err := make(d); err != nil {
				t.Fatal(err)
			}
			if err := load(d); err == nil || !strings.Contains(err.Error(), part) {
				t.Errorf("error %v does not have %q", err, part)
			}
		})
	}
	refused("link out", func(d string) error {
		return os.Symlink("../"+filepath.Base(outside)+"/out.cedar", filepath.Join(d, "l.cedar"))
	}, "l.cedar")
	refused("absolute link out", func(d string) error {
		return os.Symlink(filepath.Join(outside, "out.cedar"), filepath.Join(d, "l.cedar"))
	}, "l.cedar")
	refused("entities link out", func(d string) error {
		return os.Symlink("/etc/hostname", filepath.Join(d, "entities.json"))
	}, "entities.json")
	refused("link to nothing", func(d string) error {
		return os.Symlink("gone", filepath.Join(d, "l.cedar"))
	}, "l.cedar")
	refused("directory", func(d string) error { return os.Mkdir(filepath.Join(d, "d.cedar"), 0o700) }, "d.cedar: not a regular file")
	refused("named pipe", func(d string) error { return syscall.Mkfifo(filepath.Join(d, "f.cedar"), 0o600) }, "f.cedar: not a regular file")

	file := func(d, name string) error {
		name = filepath.Join(d, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
			return err
		}
		return os.WriteFile(name, []byte(permitAll), 0o600)
	}
	for _, name := range []string{"..x.cedar", "..cedar", "..data", "..2026_11_24_12_00_00.5", "..backup/q.cedar", "..2026_11_24/q.cedar"} {
		refused("two dots: "+name, func(d string) error { return file(d, name) }, "two dots belong to Kubernetes")
	}
	refused("two dots: a link", func(d string) error { return os.Symlink("p.cedar", filepath.Join(d, "..p")) }, "..p: names that begin with two dots")
	refused("two dots: a link to nothing", func(d string) error { return os.Symlink(version, filepath.Join(d, "..data")) }, "..data: a link that cannot be followed")
	refused("file in a sub-directory", func(d string) error { return file(d, "sub/q.cedar") }, "sub/q.cedar: sub-directories are not read")
	refused("file deeper", func(d string) error { return file(d, ".a/..b/c/q.Cedar") }, ".a/..b/c/q.Cedar: sub-directories are not read")
	refused("link to a directory, as a mounted ConfigMap has for a path", func(d string) error {
		return errors.Join(file(d, version+"/sub/q.cedar"), os.Symlink(version, filepath.Join(d, "..data")), os.Symlink("..data/sub", filepath.Join(d, "sub")))
	}, "sub/q.cedar: sub-directories are not read")
	refused("link to a directory outside", func(d string) error { return os.Symlink(outside, filepath.Join(d, "sub")) }, "sub: a link that cannot be followed")
	refused("link to a directory, deeper", func(d string) error {
		return errors.Join(file(d, "sub/README"), file(d, version+"/q.cedar"), os.Symlink("../"+version, filepath.Join(d, "sub/link")))
	}, "sub/link: a link in a sub-directory")
	refused("links in a circle", func(d string) error {
		return errors.Join(file(d, "sub/README"), os.Symlink("../sub", filepath.Join(d, "sub/a")), os.Symlink("../sub", filepath.Join(d, "sub/b")))
	}, "sub/a: a link in a sub-directory")
	if os.Getuid() != 0 { // root reads all
		refused("directory that cannot be read", func(d string) error { return os.Mkdir(filepath.Join(d, "sub"), 0) }, "sub: a sub-directory that cannot be read")
	}
	t.Run("what holds no policies", func(t *testing.T) {
		d := dir(t, "p.cedar", permitAll, "q.cedar.old", "", "cedar", "")
		if err := errors.Join(file(d, "sub/README"), os.Symlink("README", filepath.Join(d, "sub/link")), os.Symlink("sub", filepath.Join(d, "other"))); err != nil {
			t.Fatal(err)
		}
		if err := load(d); err != nil {
			t.Error(err)
		}
	})
	t.Run("no directory", func(t *testing.T) {
		if load(filepath.Join(outside, "nosuch")) == nil {
			t.Error("loaded")
		}
	})
	t.Run("links inside, as a mounted ConfigMap has", func(t *testing.T) {
		d := mount(t, "p.cedar", permitAll)
		if err := load(d); err != nil {
			t.Error(err)
		}
		// While the next version is put in its place.
		next := "..2026_11_24_12_00_01.77"
		if err := errors.Join(file(d, next+"/p.cedar"), file(d, next+"/q.cedar"), os.Symlink(next, filepath.Join(d, "..data_tmp"))); err != nil {
			t.Fatal(err)
		}
		if err := load(d); err != nil {
			t.Error(err)
		}
		if err := os.Rename(filepath.Join(d, "..data_tmp"), filepath.Join(d, "..data")); err != nil {
			t.Fatal(err)
		}
		if err := load(d); err == nil || !strings.Contains(err.Error(), "..data/q.cedar: there is no link to it") {
			t.Errorf("a file to which there is no link yet: %v", err)
		}
		if err := os.Symlink("..data/q.cedar", filepath.Join(d, "q.cedar")); err != nil {
			t.Fatal(err)
		}
		if err := load(d); err == nil || !strings.Contains(err.Error(), `@id("all") is also that of`) {
			t.Errorf("the new file is not read: %v", err)
		}
	})
	t.Run("no catalogue", func(t *testing.T) {
		if _, err := Load(Config{Dir: outside}); err == nil {
			t.Error("loaded")
		}
	})
}

func TestReadTwice(t *testing.T) {
	a := source{policies: []file{{"p", []byte("x")}}, entities: []byte("[]")}
	read := func(second source) (source, error) {
		all := []source{a, second}
		return readTwice(func() (source, error) {
			next := all[0]
			all = all[1:]
			return next, nil
		})
	}
	for name, b := range map[string]source{
		"text":     {policies: []file{{"p", []byte("y")}}, entities: []byte("[]")},
		"name":     {policies: []file{{"q", []byte("x")}}, entities: []byte("[]")},
		"more":     {policies: []file{{"p", []byte("x")}, {"q", nil}}, entities: []byte("[]")},
		"entities": {policies: []file{{"p", []byte("x")}}, entities: []byte("[ ]")},
		"manifest": {policies: []file{{"p", []byte("x")}}, entities: []byte("[]"), tree: fingerprint{1}},
	} {
		if got, err := read(b); err == nil || got.policies != nil {
			t.Errorf("%s: a change is not seen", name)
		}
	}
	if got, err := read(a); err != nil || !got.equal(a) {
		t.Errorf("without a change: %v, %v", got, err)
	}
}

// Manifests that are loaded are those that were there with the policies.
func TestManifestsOfTheSource(t *testing.T) {
	cfg := Config{Manifests: dir(t, "look.yaml", look), Catalog: testCatalog(t)}
	src := source{tree: treeOf(cfg.Manifests)}
	if err := src.addManifests(cfg); err != nil || len(src.manifests.Kinds()) != 1 {
		t.Errorf("%v, %v", src.manifests.Kinds(), err)
	}
	src = source{tree: fingerprint{1}}
	if err := src.addManifests(cfg); !errors.Is(err, errChanged) || src.manifests != nil {
		t.Errorf("of another folder: %v, %v", src.manifests.Kinds(), err)
	}
}
