// Package stage is what the played examples stand on: an example's files in a
// temporary folder, and its tool, toolgrant and Envoy on free ports of this machine.
//
// Nothing is left behind. What is started ends before the stage closes, last first,
// also when the play is interrupted; if the play is killed, the kernel ends it.
// (Killed by SIGKILL, it leaves the folder, and no process.)
package stage

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// Config says what is played. Every field must be set.
type Config struct {
	Example  string   // the folder with toolgrant.yaml, tools.yaml and policies, from the project's folder
	Programs []string // built into .bin, besides toolgrant; the first is the tool, and takes --listen ADDR
	Temp     string   // what the temporary folder's name begins with
	Missing  string   // the error if a program is not there, or $ENVOY is empty
}

// Stage is everything that a story needs, and how far it has been told. It is for
// one goroutine.
type Stage struct {
	Dir           string // temporary: files, keys, logs
	Broker, Front string // base URLs: the broker's, and Envoy's
	Step          int    // the one that is told, from 1

	bin    string
	tool   string   // its program's name
	addrs  []string // of the tool, the broker, Envoy, metrics
	procs  []*Process
	failed []string
}

// Open finds the programs, and lays out the example's files with free ports. It is
// called in the project's folder. Close must be called.
func Open(c Config) (*Stage, error) {
	bin, err := filepath.Abs(".bin")
	if err != nil {
		return nil, err
	}
	st := &Stage{bin: bin, tool: c.Programs[0]}
	for _, program := range append([]string{"toolgrant"}, c.Programs...) {
		if _, err := os.Stat(st.Program(program)); err != nil || os.Getenv("ENVOY") == "" {
			return nil, errors.New(c.Missing)
		}
	}
	if st.addrs, err = FreeAddrs(4); err != nil {
		return nil, err
	}
	st.Broker, st.Front = "http://"+st.addrs[1], "http://"+st.addrs[2]
	if st.Dir, err = os.MkdirTemp("", c.Temp); err != nil {
		return nil, err
	}
	if err := st.copyExample(c.Example); err != nil {
		return nil, errors.Join(err, st.Close())
	}
	return st, nil
}

// Close ends what was started, last first, and removes the folder.
func (st *Stage) Close() error {
	for i := len(st.procs) - 1; i >= 0; i-- {
		st.procs[i].Stop()
	}
	return os.RemoveAll(st.Dir)
}

// Path returns where a file of the stage is.
func (st *Stage) Path(name string) string { return filepath.Join(st.Dir, name) }

// Program returns where a program is that make has built.
func (st *Stage) Program(name string) string { return filepath.Join(st.bin, name) }

// copyExample copies the example's files, with other addresses.
func (st *Stage) copyExample(example string) error {
	r := strings.NewReplacer(
		"127.0.0.1:8080", st.addrs[0], "127.0.0.1:8181", st.addrs[1], "127.0.0.1:10000", st.addrs[2], "127.0.0.1:9190", st.addrs[3],
		// The path of a socket may have 107 bytes.
		"listen: 127.0.0.1:8182", "listen: unix://"+st.Path("authz.sock"),
		"listen: 127.0.0.1:8183", "listen: unix://"+st.Path("surface.sock"),
	)
	for _, pattern := range []string{"*.yaml", "policies/*"} {
		files, err := filepath.Glob(filepath.Join(example, pattern))
		if err != nil || len(files) == 0 {
			return errors.Join(err, fmt.Errorf("no %s/%s: start it in the project's folder", example, pattern))
		}
		for _, f := range files {
			text, err := os.ReadFile(f)
			if err != nil {
				return err
			}
			to := st.Path(strings.TrimPrefix(f, example))
			if err := os.MkdirAll(filepath.Dir(to), 0o700); err != nil {
				return err
			}
			if err := os.WriteFile(to, []byte(r.Replace(string(text))), 0o600); err != nil {
				return err
			}
		}
	}
	return nil
}

// Build has an identity provider in a folder write the identities, and starts the
// tool, toolgrant and Envoy. identities has the flags of `toolgrant identity` for
// each: NAME, whose token is in the file NAME.jwt -> flags.
func (st *Stage) Build(ctx context.Context, identities map[string][]string) error {
	for name, flags := range identities {
		if err := st.write(ctx, name+".jwt", append([]string{"identity", "--dir", st.Path("run/issuer")}, flags...)...); err != nil {
			return err
		}
	}
	if err := st.write(ctx, "envoy.yaml", "envoy", "--config", st.Path("toolgrant.yaml")); err != nil {
		return err
	}
	for i, args := range [][]string{
		{st.Program(st.tool), "--listen", st.addrs[0]},
		{st.Program("toolgrant"), "serve", "--config", st.Path("toolgrant.yaml")},
		{os.Getenv("ENVOY"), "--disable-hot-restart", "--concurrency", "1", "--log-level", "warning", "-c", st.Path("envoy.yaml")},
	} {
		cmd := exec.Command(args[0], args[1:]...)
		// Its own group: a Ctrl-C comes to the play alone, which then stops them
		// in order.
		cmd.SysProcAttr = DieWithParent()
		cmd.SysProcAttr.Setpgid = true
		p, err := Start(cmd)
		if err != nil {
			return err
		}
		st.procs = append(st.procs, p)
		if err := p.Listens(ctx, st.addrs[i]); err != nil {
			return err
		}
	}
	return nil
}

// ToolLog returns what the tool has written.
func (st *Stage) ToolLog() string { return st.procs[0].Output() }

// write keeps what toolgrant prints in a file.
func (st *Stage) write(ctx context.Context, file string, args ...string) error {
	out, err := st.run(ctx, "", args...)
	if err != nil {
		return err
	}
	return os.WriteFile(st.Path(file), []byte(out), 0o600)
}

// run runs toolgrant as a workload with an identity would, and returns what it
// printed.
func (st *Stage) run(ctx context.Context, as string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, st.Program("toolgrant"), args...)
	cmd.SysProcAttr = DieWithParent()
	cmd.Env = append(os.Environ(), "TOOLGRANT_URL="+st.Broker)
	if as != "" {
		cmd.Env = append(cmd.Env, "TOOLGRANT_IDENTITY_TOKEN_FILE="+st.Path(as+".jwt"))
	}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("toolgrant %s: %w\n%s", args[0], err, stderr.String())
	}
	return strings.TrimSpace(string(out)), nil
}
