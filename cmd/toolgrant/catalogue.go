package main

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/net/http/httpguts"

	"github.com/toolgrant/toolgrant/catalog"
)

// No broker is asked, and nobody refuses; diff has codes of its own.
const catalogueExitHelp = `
Exit codes:
  0  done
  1  failed: the server could not be asked, or offers what no catalogue can have
  2  wrong use or configuration, or a catalogue that is not in order
"catalogue diff" has codes of its own: see its --help.
`

func catalogueCommand() *cobra.Command {
	diff := catalogueDiffCommand()
	cmd := group("catalogue", "Write the catalogue of an MCP server's tools, and check it",
		catalogueImportCommand(), diff, catalogueCheckCommand())
	cmd.SetHelpTemplate(cmd.HelpTemplate() + catalogueExitHelp)
	return cmd
}

func catalogueCheckCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "check FILE",
		Short: "Read a catalogue as serve does",
		Long: `Read a catalogue (tools.yaml) as serve does: what is wrong is said with its line
and column, and exit code 2. Nothing else is read, and nobody is asked. Whether
policies fit it is for "toolgrant policy check" to say, and whether the servers
still are what it says for "toolgrant catalogue diff".`,
		Example: `  toolgrant catalogue check tools.yaml`,
		Args:    operands("FILE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := catalog.Load(args[0])
			if err != nil {
				return usageError(err)
			}
			tools := 0
			for i := range c.Servers {
				tools += len(c.Servers[i].Tools)
			}
			return printLine(cmd, fmt.Sprintf("%s is in order: %s, %s", args[0], count(len(c.Servers), "server"), count(tools, "tool")))
		},
	}
}

// count says how many there are of something.
func count(n int, of string) string {
	if n == 1 {
		return "1 " + of
	}
	return fmt.Sprintf("%d %ss", n, of)
}

// mcpFlags say how to call a running MCP server.
type mcpFlags struct {
	url, bearerFile string
	headers         []string
	timeout         ttlFlag
}

func (f *mcpFlags) register(cmd *cobra.Command, url string) {
	flags := cmd.Flags()
	flags.StringVar(&f.url, "mcp", "", url)
	flags.StringVar(&f.bearerFile, "bearer-file", "", "`FILE` with a token for the server, or - for stdin")
	flags.StringArrayVar(&f.headers, "header", nil, "`HEADER` for the server, as \"Name: value\"; may be repeated. Everybody on this machine can see it: for a token use --bearer-file")
	flags.Var(&f.timeout, "timeout", "how long it may take, of each server (default 30s)")
}

// credentials reports whether anything is to be sent that the protocol does not
// need.
func (f *mcpFlags) credentials() bool { return f.bearerFile != "" || len(f.headers) > 0 }

// header is what requests carry besides what the protocol needs.
func (f *mcpFlags) header(cmd *cobra.Command) (http.Header, error) {
	header := http.Header{}
	for _, text := range f.headers {
		name, value, ok := strings.Cut(text, ":")
		value = strings.TrimSpace(value)
		lower := strings.ToLower(name)
		switch {
		case !ok, !httpguts.ValidHeaderFieldName(name), !httpguts.ValidHeaderFieldValue(value), value == "":
			return nil, usagef("--header: write it as \"Name: value\"")
		case strings.HasPrefix(lower, "mcp-"), slices.Contains([]string{
			"accept", "accept-encoding", "connection", "content-length", "content-type", "host", "last-event-id", "te", "trailer", "transfer-encoding", "upgrade"}, lower):
			return nil, usagef("--header %s: the protocol sets that itself", name)
		}
		header.Add(name, value)
	}
	if f.bearerFile != "" {
		if header.Get("Authorization") != "" {
			return nil, usagef("--bearer-file and --header Authorization are two credentials; give one")
		}
		token, err := identityToken(f.bearerFile, cmd.InOrStdin(), cmd.ErrOrStderr())
		if err != nil {
			return nil, err
		}
		if !httpguts.ValidHeaderFieldValue(token) {
			return nil, usageError(errors.New(f.bearerFile + " does not hold a token: there is more than a line in it"))
		}
		header.Set("Authorization", "Bearer "+token)
	}
	return header, nil
}
