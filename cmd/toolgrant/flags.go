package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// configFlag names the configuration that a command reads. It is one rule for
// all commands: where the shell lines of "toolgrant dev" were pasted, that one's.
type configFlag struct{ file string }

func (c *configFlag) register(cmd *cobra.Command) {
	cmd.Flags().StringVar(&c.file, "config", "", "configuration `FILE` (default $"+envDevDir+"/toolgrant.yaml if that is set, else toolgrant.yaml)")
}

// path is the file to read.
func (c *configFlag) path() string {
	if c.file != "" {
		return c.file
	}
	return filepath.Join(os.Getenv(envDevDir), "toolgrant.yaml")
}

func (c *configFlag) load() (*Config, error) { return LoadConfig(c.path()) }

// ttlFlag is a duration that, if it is given, is above zero. (The client
// refuses parts of a second.)
type ttlFlag struct{ time.Duration }

func (f *ttlFlag) Set(s string) error {
	d, err := time.ParseDuration(s)
	if err != nil || d <= 0 {
		return errors.New("write a time above zero with its unit, such as 90s, 5m or 1h")
	}
	f.Duration = d
	return nil
}

func (f *ttlFlag) Type() string { return "duration" }

func (f *ttlFlag) String() string {
	if f.Duration == 0 {
		return ""
	}
	return f.Duration.String()
}

// countFlag is a number that, if it is given, is above zero.
type countFlag struct{ n int64 }

func (f *countFlag) Set(s string) error {
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n < 1 {
		return errors.New("write a whole number, 1 or more, or leave it out")
	}
	f.n = n
	return nil
}

func (f *countFlag) Type() string { return "count" }

func (f *countFlag) String() string {
	if f.n == 0 {
		return ""
	}
	return strconv.FormatInt(f.n, 10)
}

// portsFlag is the first of several TCP ports in a row.
type portsFlag struct {
	first int // 0: not given
	row   int // how many there are
}

func (f *portsFlag) Set(s string) error {
	last := 65535 - (f.row - 1)
	n, err := strconv.Atoi(s)
	if err != nil || n < 1 || n > last {
		return fmt.Errorf("write a port from 1 to %d: the next %d are used, too", last, f.row-1)
	}
	f.first = n
	return nil
}

func (f *portsFlag) Type() string { return "port" }

func (f *portsFlag) String() string {
	if f.first == 0 {
		return ""
	}
	return strconv.Itoa(f.first)
}

// flagError says what is wrong with a flag in this program's words: Go's own
// name the function that did not like it.
func flagError(_ *cobra.Command, err error) error {
	var value *pflag.InvalidValueError
	var number *strconv.NumError
	if errors.As(err, &value) && errors.As(err, &number) && value.GetFlag().Value.Type() == "bool" {
		return usagef("--%s takes no value: leave %q out, or write =true or =false", value.GetFlag().Name, "="+value.GetValue())
	}
	return usagef("%w", err)
}

// forCompletion prepares the commands for a shell that asks what could come
// next. Files are offered where a placeholder says FILE or DIR and nowhere else
// (cobra by itself offers them for everything), and what is said of a flag is
// without the quotes around its placeholder.
func forCompletion(cmd *cobra.Command) {
	for _, sub := range cmd.Commands() {
		forCompletion(sub)
	}
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		placeholder, usage := pflag.UnquoteUsage(f)
		f.Usage = usage
		switch placeholder {
		case "FILE":
		case "DIR":
			_ = cmd.MarkFlagDirname(f.Name) // fails for a flag that is not there
		default:
			_ = cmd.RegisterFlagCompletionFunc(f.Name, cobra.NoFileCompletions) // fails where there is one already
		}
	})
	// Of operands it is the use line that says it; what exec runs is a file, too.
	_, operands, _ := strings.Cut(strings.ReplaceAll(cmd.Use, "[", ""), " ")
	if cmd.ValidArgsFunction == nil && len(cmd.ValidArgs) == 0 && !strings.HasPrefix(operands, "FILE") && !strings.Contains(operands, "-- CMD") {
		cmd.ValidArgsFunction = cobra.NoFileCompletions
	}
}
