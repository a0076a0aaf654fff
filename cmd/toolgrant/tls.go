package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
)

// certificates are a door's TLS files. They are read again when they have
// changed (a mounted secret is renewed under a running process); what cannot be
// read then leaves the last good ones in force.
type certificates struct {
	files   TLSConfig
	protos  []string // ALPN
	log     *zap.Logger
	current atomic.Pointer[tls.Config]
	stamps  [3]stamp // of the files that current was made of; run alone
}

// stamp is what tells one state of a file from another.
type stamp struct {
	size int64
	time time.Time
}

// openCertificates reads a door's files; nil for a door without TLS.
func openCertificates(files TLSConfig, log *zap.Logger, protos ...string) (*certificates, error) {
	if !files.on() {
		return nil, nil
	}
	c := &certificates{files: files, protos: protos, log: log}
	c.stamps = c.look()
	if err := c.load(); err != nil {
		return nil, err
	}
	return c, nil
}

// config is for a listener: each connection begins with the files of that
// moment.
func (c *certificates) config() *tls.Config {
	if c == nil {
		return nil
	}
	return &tls.Config{
		MinVersion: tls.VersionTLS12, // RFC 9325, Section 3.1.1
		NextProtos: c.protos,
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
			return c.current.Load(), nil
		},
	}
}

func (c *certificates) load() error {
	if err := private(c.files.Key); err != nil {
		return err
	}
	pair, err := tls.LoadX509KeyPair(c.files.Cert, c.files.Key)
	if err != nil {
		return fmt.Errorf("certificate %s with key %s: %w", c.files.Cert, c.files.Key, err)
	}
	next := &tls.Config{MinVersion: tls.VersionTLS12, NextProtos: c.protos, Certificates: []tls.Certificate{pair}}
	if c.files.ClientCA != "" {
		pem, err := os.ReadFile(c.files.ClientCA)
		if err != nil {
			return err
		}
		next.ClientCAs = x509.NewCertPool()
		if !next.ClientCAs.AppendCertsFromPEM(pem) {
			return fmt.Errorf("client_ca %s: no certificate in it", c.files.ClientCA)
		}
		next.ClientAuth = tls.RequireAndVerifyClientCert
	}
	c.current.Store(next)
	return nil
}

// private refuses a key that others than its owner and group may read: a group
// may, because Kubernetes mounts secrets so.
func private(path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	if mode := info.Mode().Perm(); mode&0o027 != 0 {
		return fmt.Errorf("key %s: others can read it, or its group can write it (%#o): chmod 600 it", path, mode)
	}
	return nil
}

// look gives the files' stamps; a file that is not there has none.
func (c *certificates) look() (s [3]stamp) {
	for i, path := range []string{c.files.Cert, c.files.Key, c.files.ClientCA} {
		if info, err := os.Stat(path); err == nil { // follows the links of a mount
			s[i] = stamp{info.Size(), info.ModTime()}
		} else if !errors.Is(err, fs.ErrNotExist) {
			s[i] = stamp{size: -1}
		}
	}
	return s
}

// run reads changed files again until ctx ends.
func (c *certificates) run(ctx context.Context) error {
	if c == nil {
		<-ctx.Done()
		return nil
	}
	tick := time.NewTicker(5 * time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			c.refresh()
		}
	}
}

func (c *certificates) refresh() {
	now := c.look()
	if now == c.stamps {
		return
	}
	if err := c.load(); err != nil {
		// A pair that is being replaced does not fit for a moment: the next look
		// tries again.
		c.log.Error("reading changed TLS files; the last good ones stay in force", zap.Error(err))
		return
	}
	c.stamps = now
	c.log.Info("TLS files were read again", zap.String("cert", c.files.Cert))
}
