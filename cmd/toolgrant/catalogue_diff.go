package main

import (
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/toolgrant/toolgrant/catalog"
)

// Scripts must tell a server that has changed from one that is away.
const diffExitHelp = `
Exit codes:
  0  done: all servers are in step with the catalogue
  1  failed: a server could not be compared, so that nobody knows; what the others
     said is on stdout all the same
  2  wrong use or configuration; nobody was asked
  3  out of step: a server is not what the catalogue says; stdout says where
`

func catalogueDiffCommand() *cobra.Command {
	var (
		config          configFlag
		flags           mcpFlags
		catalogue, only string
		ignoreNew       bool
	)
	cmd := &cobra.Command{
		Use:   "diff [--config FILE | --catalogue FILE] [--server ID] [--mcp URL]",
		Short: "Compare the catalogue with the MCP servers that run",
		Long: `Ask each MCP server of the catalogue what tools it has, and say where it is no
longer what the catalogue says: tools that are new or gone, tools whose descriptor
is not the one that is pinned, and tools without a pin, of which nobody could tell.
The pin is a digest, so that of a changed descriptor only the arguments can be
compared; look at the rest in the server itself.

A server is asked at its upstream, by plain HTTP and not through Envoy; --mcp asks
it elsewhere. Nothing is written: look at what has changed, then edit the
catalogue, or take the entry that "toolgrant catalogue import" prints.`,
		Example: `  toolgrant catalogue diff --config toolgrant.yaml

  # One server, which wants a token, and of which only some tools are catalogued.
  toolgrant catalogue diff --catalogue tools.yaml --server tickets --bearer-file token --ignore-new`,
		Args: operands(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if catalogue == "" {
				cfg, err := config.load()
				if err != nil {
					return err
				}
				catalogue = cfg.Catalogue
			} else if config.file != "" {
				return usagef("give --config or --catalogue, not both")
			}
			c, err := catalog.Load(catalogue)
			if err != nil {
				return usageError(err)
			}
			servers, err := mcpServers(c, only)
			if err != nil {
				return err
			}
			if len(servers) > 1 && (flags.credentials() || flags.url != "") {
				return usagef("the catalogue has several MCP servers: say by --server which one --mcp, --bearer-file and --header are for")
			}
			header, err := flags.header(cmd)
			if err != nil {
				return err
			}
			inStep, unknown := true, []string(nil)
			for _, s := range servers {
				target := mcpTarget{"http://" + s.Upstream + s.MCP.UpstreamPath, header, flags.timeout.Duration, cmd.ErrOrStderr()}
				if flags.url != "" {
					u, err := parseMCPURL(flags.url)
					if err != nil {
						return err
					}
					target.url = u.String()
				}
				live, err := fetchTools(cmd.Context(), target, s.MCP.Revisions, false)
				if err != nil {
					unknown = append(unknown, fmt.Sprintf("server %q could not be compared: %v", s.ID, err))
					if err := cmd.Context().Err(); err != nil {
						return err
					}
					continue
				}
				text, same := compareServer(s, live, ignoreNew)
				if err := output(cmd, text); err != nil {
					return err
				}
				inStep = inStep && same
			}
			switch {
			case len(unknown) > 0:
				return errors.New(strings.Join(unknown, "; "))
			case !inStep:
				return &commandExit{code: exitRefused}
			}
			return nil
		},
	}
	cmd.SetHelpTemplate(cmd.HelpTemplate() + diffExitHelp)
	config.register(cmd)
	flags.register(cmd, "`URL` to ask the server at, if not at its upstream")
	cmd.Flags().StringVar(&catalogue, "catalogue", "", "catalogue `FILE` (default: the configuration's)")
	cmd.Flags().StringVar(&only, "server", "", "`ID` of the one server to compare")
	cmd.Flags().BoolVar(&ignoreNew, "ignore-new", false, "tools that the catalogue does not have are left out on purpose: they cannot be called")
	return cmd
}

// mcpServers gives the catalogue's MCP servers, or the one with the id.
func mcpServers(c *catalog.Catalog, id string) ([]*catalog.Server, error) {
	if id != "" {
		s, ok := c.ServerByID(id)
		if !ok || s.MCP == nil {
			return nil, usagef("--server %s: the catalogue has no MCP server of that id", id)
		}
		return []*catalog.Server{s}, nil
	}
	var all []*catalog.Server
	for i := range c.Servers {
		if c.Servers[i].MCP != nil {
			all = append(all, &c.Servers[i])
		}
	}
	if len(all) == 0 {
		return nil, usageError(errors.New("the catalogue has no MCP server to compare"))
	}
	return all, nil
}

// compareServer says how a server that runs differs from the catalogue's.
func compareServer(s *catalog.Server, live *liveServer, ignoreNew bool) (text string, same bool) {
	runs := map[string]liveTool{}
	for _, t := range live.Tools {
		runs[t.Name] = t
	}
	var lines []string
	say := func(what, name, format string, args ...any) {
		lines = append(lines, fmt.Sprintf("  %-8s %s  %s", what, shown(name, 200), fmt.Sprintf(format, args...)))
	}
	for _, t := range s.Tools {
		name := t.ID
		if t.MCPName != t.Name {
			name += " (" + t.MCPName + ")"
		}
		now, there := runs[t.MCPName]
		delete(runs, t.MCPName)
		switch pin := pinText(now.Pin); {
		case !there:
			say("gone", name, "the server does not list it")
			continue
		case t.Pin == now.Pin:
			continue
		case t.Pin == [32]byte{}:
			say("no pin", name, "pin: %s", pin)
		default:
			say("changed", name, "its descriptor is %s, not %s", pin, pinText(t.Pin))
		}
		for _, d := range compareSchemas("", t.Arguments, mapSchema(now.Input).input, t.Opaque) {
			lines = append(lines, "           "+d)
		}
	}
	if !ignoreNew {
		for _, name := range slices.Sorted(maps.Keys(runs)) {
			say("new", name, "the catalogue does not have it: calls of it are denied")
		}
	}
	if len(lines) == 0 {
		return fmt.Sprintf("%s: in step, %s\n", s.ID, count(len(s.Tools), "tool")), true
	}
	return s.ID + ": out of step\n" + strings.Join(lines, "\n") + "\n", false
}

func pinText(pin [32]byte) string { return "sha256:" + hex.EncodeToString(pin[:]) }

// compareSchemas says where the arguments that a server takes are not those of
// the catalogue. What is opaque is not looked at.
func compareSchemas(at string, ours, theirs *catalog.Schema, opaque []string) []string {
	if slices.Contains(opaque, at) && at != "" {
		return nil
	}
	place := shown(at, 200)
	if at == "" {
		place = "the arguments"
	}
	if ours.Type != theirs.Type {
		return []string{fmt.Sprintf("%s: the server's is %s, the catalogue's %s", place, theirs.Type, ours.Type)}
	}
	var all []string
	differ := func(what string, ours, theirs []string) {
		if !slices.Equal(ours, theirs) {
			all = append(all, fmt.Sprintf("%s: %s: the server has [%s], the catalogue [%s]", place, what, shown(strings.Join(theirs, ", "), maxShown), shown(strings.Join(ours, ", "), maxShown)))
		}
	}
	differ("enum", ours.Enum, theirs.Enum)
	differ("required", ours.Required, theirs.Required)
	differ("header", []string{ours.Header}, []string{theirs.Header})
	differ("nullable", []string{strconv.FormatBool(ours.Nullable)}, []string{strconv.FormatBool(theirs.Nullable)})
	names := slices.AppendSeq(slices.Collect(maps.Keys(ours.Properties)), maps.Keys(theirs.Properties))
	slices.Sort(names)
	for _, name := range slices.Compact(names) {
		below := at + "/" + escapePointer(name)
		o, t := ours.Properties[name], theirs.Properties[name]
		switch {
		case o == nil:
			all = append(all, shown(below, 200)+": only the server has it")
		case t == nil:
			all = append(all, shown(below, 200)+": only the catalogue has it")
		default:
			all = append(all, compareSchemas(below, o, t, opaque)...)
		}
	}
	if ours.Items != nil && theirs.Items != nil {
		all = append(all, compareSchemas(at+"/*", ours.Items, theirs.Items, nil)...)
	}
	return all
}
