package main

import (
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
)

// devAddresses are where Envoy, the broker, the call door, the tool and
// /metrics are: at port and the four behind it, or, for 0, where nobody listens
// now.
func devAddresses(port int) (at [5]string, err error) {
	for i := range at {
		if port != 0 {
			at[i] = net.JoinHostPort("127.0.0.1", strconv.Itoa(port+i))
			continue
		}
		l, err := listenSomewhere()
		if err != nil {
			return at, err
		}
		defer l.Close() // held until all are chosen
		at[i] = l.Addr().String()
	}
	return at, nil
}

// listenSomewhere takes a port on loopback that nobody has: below those that
// the kernel gives to connections (from 32768 on Linux), which could have it
// again before who it is meant for takes it.
func listenSomewhere() (net.Listener, error) {
	var l net.Listener
	var err error
	for range 100 {
		l, err = net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(10000+rand.IntN(22000))))
		if err == nil {
			break
		}
	}
	return l, err
}

// agree refuses a --port that a configuration, which is kept, contradicts.
func agree(config string, at [5]string) error {
	cfg, err := LoadConfig(config)
	if err != nil {
		return usageError(err)
	}
	for _, a := range []struct{ key, is, asked string }{
		{"envoy.listen", cfg.Envoy.Listen, at[0]}, {"broker.listen", cfg.Broker.Listen, at[1]},
		{"authz.listen", cfg.Authz.Listen, at[2]}, {"admin.listen", cfg.Admin.Listen, at[4]},
	} {
		_, is, _ := net.SplitHostPort(a.is)
		if _, asked, _ := net.SplitHostPort(a.asked); is != asked {
			return usagef("--port: %s says the ports, and %s is %s there, not %s; edit it, or leave --port out", config, a.key, a.is, a.asked)
		}
	}
	return nil
}

// free looks whether the ports are free, so that nothing is said to be up
// where another program answers: what is pasted sends tokens there.
func (d *dev) free() error {
	for _, a := range []struct{ whose, listen string }{
		{"Envoy", d.cfg.Envoy.Listen}, {"the broker", d.cfg.Broker.Listen}, {"the call door", d.cfg.Authz.Listen}, {"the surface", d.cfg.Surface.Listen}, {"/metrics", d.cfg.Admin.Listen},
	} {
		if _, _, err := net.SplitHostPort(a.listen); err != nil {
			continue // a socket, or none
		}
		l, err := net.Listen("tcp", a.listen)
		if err != nil {
			return fmt.Errorf("the place of %s: %w; end what is there, or choose other ports", a.whose, err)
		}
		l.Close()
	}
	return nil
}
