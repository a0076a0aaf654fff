package main

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/spf13/cobra"

	"github.com/toolgrant/toolgrant/client"
)

const (
	envURL       = "TOOLGRANT_URL"
	envTokenFile = "TOOLGRANT_IDENTITY_TOKEN_FILE"
	envCA        = "TOOLGRANT_CA_FILE"
	envCert      = "TOOLGRANT_CERT_FILE"
	envKey       = "TOOLGRANT_KEY_FILE"
	defaultURL   = "http://127.0.0.1:8181"

	maxTokenFile = 64 << 10 // bytes
)

// brokerFlags is what the commands that talk to a broker share.
type brokerFlags struct{ url, tokenFile, ca, cert, key string }

func (b *brokerFlags) register(cmd *cobra.Command) {
	cmd.Flags().StringVar(&b.url, "url", "", "broker's `URL`: https, or http on loopback (default $"+envURL+", else "+defaultURL+")")
	cmd.Flags().StringVar(&b.tokenFile, "identity-token-file", "", "`FILE` that holds your identity token, or - for stdin (default $"+envTokenFile+")")
	cmd.Flags().StringVar(&b.ca, "ca", "", "PEM `FILE`: who vouches for the broker's certificate (default $"+envCA+", else the system's)")
	cmd.Flags().StringVar(&b.cert, "cert", "", "PEM `FILE` with your certificate, where the broker wants one (default $"+envCert+")")
	cmd.Flags().StringVar(&b.key, "key", "", "PEM `FILE` with its key (default $"+envKey+")")
}

// transport speaks to the broker with the certificates that are named; nil: as
// usual.
func (b *brokerFlags) transport() (*http.Client, error) {
	from := func(flag, env string) string { return cmp.Or(flag, os.Getenv(env)) }
	ca, cert, key := from(b.ca, envCA), from(b.cert, envCert), from(b.key, envKey)
	if ca == "" && cert == "" && key == "" {
		return nil, nil
	}
	conf := &tls.Config{MinVersion: tls.VersionTLS12}
	if ca != "" {
		pem, err := os.ReadFile(ca)
		if err != nil {
			return nil, usageError(err)
		}
		conf.RootCAs = x509.NewCertPool()
		if !conf.RootCAs.AppendCertsFromPEM(pem) {
			return nil, usageError(fmt.Errorf("%s: no certificate in it", ca))
		}
	}
	if cert != "" || key != "" {
		if cert == "" || key == "" {
			return nil, usagef("--cert and --key go together")
		}
		pair, err := tls.LoadX509KeyPair(cert, key)
		if err != nil {
			return nil, usageError(fmt.Errorf("%s with %s: %w", cert, key, err))
		}
		conf.Certificates = []tls.Certificate{pair}
	}
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.TLSClientConfig = conf
	return &http.Client{Transport: t, Timeout: 10 * time.Second}, nil
}

// file is where the identity token is; "" for nowhere.
func (b *brokerFlags) file() string {
	if b.tokenFile != "" {
		return b.tokenFile
	}
	return os.Getenv(envTokenFile)
}

func (b *brokerFlags) client(cmd *cobra.Command) (*client.Client, error) {
	url, file := b.url, b.file()
	if url == "" {
		url = os.Getenv(envURL)
	}
	if url == "" {
		url = defaultURL
	}
	if file == "" {
		return nil, usagef("no identity token: give --identity-token-file FILE, or set %s", envTokenFile)
	}
	// The file is read anew for each call: whoever keeps a token in it fresh may
	// replace it meanwhile. What there is to warn of is said once.
	through, err := b.transport()
	if err != nil {
		return nil, err
	}
	var mu sync.Mutex
	warn := cmd.ErrOrStderr()
	return client.New(client.Config{
		URL:       url,
		HTTP:      through,
		UserAgent: "toolgrant/" + buildInfo().Version,
		Identity: func(context.Context) (string, error) {
			mu.Lock()
			defer mu.Unlock()
			t, err := identityToken(file, cmd.InOrStdin(), warn)
			warn = io.Discard
			return t, err
		},
	})
}

// identityToken reads the token from a file. A token is never taken from the
// command line: every user of the machine can see that, and the shell keeps it.
func identityToken(file string, stdin io.Reader, stderr io.Writer) (string, error) {
	// The usual mistake; an error about the "file" would print the token.
	if strings.HasPrefix(file, "eyJ") && strings.Count(file, ".") >= 2 {
		return "", usagef("that is a token, and not the name of a file with one; put it into a file of mode 0600")
	}
	in := stdin
	if file != "-" {
		f, err := os.Open(file)
		if err != nil {
			return "", usageError(err)
		}
		defer f.Close()
		if info, err := f.Stat(); err == nil && info.Mode().IsRegular() && info.Mode().Perm()&0o044 != 0 {
			fmt.Fprintf(stderr, "warning: others can read the token in %s (mode %#o): chmod 600 %[1]s\n", file, info.Mode().Perm())
		}
		in = f
	}
	b, err := io.ReadAll(io.LimitReader(in, maxTokenFile+1))
	if err != nil {
		return "", usageError(err)
	}
	t := strings.TrimSpace(string(b))
	if t == "" || len(b) > maxTokenFile {
		return "", usageError(errors.New(file + " does not hold a token"))
	}
	return t, nil
}

// output writes the result of a command. A result that could not be written is a
// failure: a script must not take an empty file for a token.
func output(cmd *cobra.Command, text string) error {
	if _, err := io.WriteString(cmd.OutOrStdout(), text); err != nil {
		return fmt.Errorf("writing the result: %w", err)
	}
	return nil
}

func printLine(cmd *cobra.Command, line string) error { return output(cmd, line+"\n") }

func printJSON(cmd *cobra.Command, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("writing the result: %w", err)
	}
	return printLine(cmd, string(b))
}
