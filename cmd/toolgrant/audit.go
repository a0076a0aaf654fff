package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/toolgrant/toolgrant/audit"
)

func auditCommand() *cobra.Command {
	return group("audit", "Read the log of decisions", auditVerifyCommand())
}

func auditVerifyCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "verify FILE",
		Short: "Check that no record was changed, lost or moved",
		Long: `Read a log of decisions from its first line, and check the chain in which each
record holds the hash of the one before it. FILE may be - for stdin.

The chain cannot show that records are missing at its end, nor that all of it
was written anew. For that, keep the printed count and hash out of reach of the
machine that writes the log, and compare: the count must not have become less,
and the first so many lines must still give the same hash.`,
		Example: `  toolgrant audit verify audit.jsonl

  # The first 1000 records are those that were seen before.
  head -n 1000 audit.jsonl | toolgrant audit verify -`,
		Args: operands("FILE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			in, name := io.Reader(cmd.InOrStdin()), args[0]
			if name == "-" {
				name = "stdin"
			} else {
				f, err := os.Open(name)
				if err != nil {
					return usageError(err)
				}
				defer f.Close()
				in = f
			}
			s, err := audit.Verify(in)
			switch {
			case err != nil:
				return fmt.Errorf("%s: %w; the %d records before it are good", name, err, s.Lines)
			case s.Lines == 0:
				// An emptied log is what a deleted one looks like.
				return errors.New(name + ": no records: a log that has lost all of them looks the same")
			}
			return printLine(cmd, fmt.Sprintf("%s: %d records are good, from %s to %s; last hash %s", name, s.Lines,
				s.First.UTC().Format(time.RFC3339), s.Last.UTC().Format(time.RFC3339), s.LastHash))
		},
	}
	return cmd
}
