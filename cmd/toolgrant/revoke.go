package main

import (
	"github.com/spf13/cobra"

	"github.com/toolgrant/toolgrant/client"
)

func revokeCommand() *cobra.Command {
	var (
		broker            brokerFlags
		task, agent, tool string
	)
	cmd := &cobra.Command{
		Use:   "revoke GRANT | --task TASK | --agent AGENT | --tool SERVER/TOOL",
		Short: "End grants before their time",
		Long: `End one grant, or all grants of a task, an agent or a tool that were issued until
now. No call under one of them passes once this has returned. With --task the
task ends, too; an agent or a tool may be granted anew, if policy permits it.`,
		Example: `  toolgrant revoke g_k3v6w7yz2m4n5p6q7r2s3t4u5v

  # Whatever this agent holds, in all tasks.
  toolgrant revoke --agent corp/report-bot

  # Whoever holds this tool.
  toolgrant revoke --tool bank/pay`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 1 {
				return usagef("unexpected operand %q", args[1])
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			scope, key, said := client.Scope(""), "", len(args)
			for s, k := range map[client.Scope]string{client.ScopeTask: task, client.ScopeAgent: agent, client.ScopeTool: tool} {
				if cmd.Flags().Changed(string(s)) {
					scope, key, said = s, k, said+1
				}
			}
			switch {
			case said == 0:
				return usagef("GRANT is missing: name one, or give --task, --agent or --tool")
			case said > 1:
				return usagef("name one GRANT, or give one of --task, --agent and --tool, and not several")
			}
			c, err := broker.client(cmd)
			if err != nil {
				return err
			}
			if scope == "" {
				if err := c.Revoke(cmd.Context(), args[0]); err != nil {
					return err
				}
				return printLine(cmd, args[0]+" revoked")
			}
			if err := c.RevokeAll(cmd.Context(), scope, key); err != nil {
				return err
			}
			if scope == client.ScopeTask {
				return printLine(cmd, key+" ended")
			}
			return printLine(cmd, "all grants of "+key+" revoked")
		},
	}
	broker.register(cmd)
	cmd.Flags().StringVar(&task, "task", "", "end this `TASK`, and all its grants")
	cmd.Flags().StringVar(&agent, "agent", "", "all grants that this `AGENT` (ALIAS/SUBJECT) holds")
	cmd.Flags().StringVar(&tool, "tool", "", "all grants of this `SERVER/TOOL`")
	return cmd
}
