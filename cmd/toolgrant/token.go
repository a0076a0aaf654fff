package main

import (
	"bytes"
	stdjson "encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/toolgrant/toolgrant/grants"
	"github.com/toolgrant/toolgrant/token"
)

const maxJWKS = 256 << 10 // bytes

func tokenCommand() *cobra.Command {
	return group("token", "Look at tokens", tokenInspectCommand())
}

func tokenInspectCommand() *cobra.Command {
	var jwks, issuer string
	cmd := &cobra.Command{
		Use:   "inspect [FILE|-]",
		Short: "Show what a token says of itself",
		Long: `Take a token apart and show its header, its claims, and its times in words: a
grant's token, or an identity token. Nothing of it is verified, unless --jwks and
--issuer are given: then a grant's token is, as the call door does it (but for
what only the table of grants knows: whether its grants live).

The token is read from FILE, or from stdin; it is never taken from the command
line, which every user of the machine can see.`,
		Example: `  toolgrant grant --task "$task" --tool reports/export | toolgrant token inspect

  # Verify it by the broker's public keys.
  curl -sO "$TOOLGRANT_URL/.well-known/jwks.json"
  toolgrant token inspect --jwks jwks.json --issuer "$TOOLGRANT_URL" token.jwt`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 1 {
				return usagef("unexpected operand %q", args[1])
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if (jwks == "") != (issuer == "") {
				return usagef("--jwks and --issuer go together")
			}
			file := "-"
			if len(args) == 1 {
				file = args[0]
			}
			text, err := identityToken(file, cmd.InOrStdin(), cmd.ErrOrStderr())
			if err != nil {
				return err
			}
			seen, err := token.Inspect(text)
			if err != nil {
				return fmt.Errorf("not a token that toolgrant reads: %w", err)
			}
			verdict := "NOT VERIFIED: whoever wrote this text chose every word of it."
			if jwks != "" {
				if verdict, err = verifyToken(text, seen, jwks, issuer); err != nil {
					return err
				}
			}
			return output(cmd, inspectionText(seen, verdict, time.Now()))
		},
	}
	cmd.Flags().StringVar(&jwks, "jwks", "", "`FILE` of the broker's public keys, to verify a grant's token")
	cmd.Flags().StringVar(&issuer, "issuer", "", "`URL` that the broker gives as the issuer")
	return cmd
}

// verifyToken says what was verified; a token that does not hold is an error.
func verifyToken(text string, seen token.Inspection, jwks, issuer string) (string, error) {
	if seen.UnverifiedClaims == nil {
		return "", usageError(fmt.Errorf("--jwks verifies a grant's token, and this is of another issuer"))
	}
	data, err := readFile(jwks, maxJWKS)
	if err != nil {
		return "", usageError(fmt.Errorf("%s: %w", jwks, err))
	}
	keys, err := token.ParseJWKS(data)
	if err != nil {
		return "", usageError(fmt.Errorf("%s: %w", jwks, err))
	}
	verifier, err := token.NewVerifier(issuer, keys)
	if err != nil {
		return "", usageError(err)
	}
	claims, why := verifier.Verify(text, seen.UnverifiedClaims.Audience, time.Now())
	if why != grants.None {
		return "", fmt.Errorf("the token does NOT verify by %s and issuer %s: %s", jwks, issuer, why)
	}
	return fmt.Sprintf("Verified: signed by a key of %s, and good now at %s. Whether its grants live, the broker knows.", jwks, claims.Audience), nil
}

func inspectionText(seen token.Inspection, verdict string, now time.Time) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n\n", printable(verdict))
	kind := "of another issuer than a toolgrant broker (an identity token?)"
	if seen.UnverifiedClaims != nil {
		kind = "a grant's token"
	}
	fmt.Fprintf(&b, "kind       %s\nheader     alg %s, typ %s, kid %s\n", kind,
		printable(seen.UnverifiedHeader.Alg), printable(seen.UnverifiedHeader.Typ), printable(seen.UnverifiedHeader.KID))
	for _, at := range []struct {
		name string
		time time.Time
	}{{"issued", seen.UnverifiedIssuedAt}, {"not before", seen.UnverifiedNotBefore}, {"expires", seen.UnverifiedExpires}} {
		fmt.Fprintf(&b, "%-10s %s\n", at.name, timeInWords(at.time, now))
	}
	fmt.Fprintf(&b, "signature  %s\n\n", seen.SignatureMark)
	var claims bytes.Buffer
	if stdjson.Indent(&claims, seen.UnverifiedPayload, "", "  ") != nil {
		claims.Write(seen.UnverifiedPayload)
	}
	b.WriteString(printableLines(claims.Bytes()) + "\n")
	return b.String()
}

func timeInWords(at, now time.Time) string {
	switch {
	case at.IsZero():
		return "not said"
	case at.After(now):
		return at.Local().Format(time.RFC3339) + ", in " + inWords(at.Sub(now))
	}
	return at.Local().Format(time.RFC3339) + ", " + inWords(now.Sub(at)) + " ago"
}
