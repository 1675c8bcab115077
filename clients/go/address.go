package perennial

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
)

const (
	defaultAddress = "http://127.0.0.1:50051"
	defaultPort    = "50051"
)

// address is a server, and how it is reached.
type address struct {
	// target is the target of grpc-go.
	target string
	// url is the address in errors.
	url      string
	isSecure bool
	// isLocal is true if nothing leaves the machine.
	isLocal bool
}

// parseAddress reads `HOST[:PORT]`, `http://HOST[:PORT]`, `https://HOST[:PORT]` or `unix:PATH`. Empty: the environment
// variable PERENNIAL_SERVER, and then http://127.0.0.1:50051.
func parseAddress(text string, hasTLS bool) (address, error) {
	if text == "" {
		text = os.Getenv("PERENNIAL_SERVER")
	}
	if text == "" {
		text = defaultAddress
	}
	if path, isUnix := strings.CutPrefix(text, "unix:"); isUnix {
		path = strings.TrimPrefix(path, "//")
		if path == "" || hasTLS {
			return address{}, fmt.Errorf("the address %q: a socket needs a path and has no TLS: try unix:/run/perennial.sock", text)
		}
		return address{target: "unix:" + path, url: text, isLocal: true}, nil
	}
	scheme, authority, hasScheme := strings.Cut(text, "://")
	if !hasScheme {
		scheme, authority = "http", text
		if hasTLS {
			scheme = "https"
		}
	}
	scheme = strings.ToLower(scheme)
	if scheme != "http" && scheme != "https" {
		return address{}, fmt.Errorf("the address %q has an unknown scheme: try %s", text, defaultAddress)
	}
	if strings.ContainsRune(authority, '@') {
		return address{}, fmt.Errorf("the address has a user name, which is not supported: try %s", defaultAddress)
	}
	authority = strings.TrimSuffix(authority, "/")
	host, port, err := net.SplitHostPort(authority)
	if err != nil {
		host, port = strings.TrimSuffix(strings.TrimPrefix(authority, "["), "]"), defaultPort
	}
	number, err := strconv.ParseUint(port, 10, 16)
	if host == "" || strings.ContainsAny(host, "/?# ") || err != nil || number == 0 {
		return address{}, fmt.Errorf("the address %q is not HOST:PORT: try %s", text, defaultAddress)
	}
	if scheme == "http" && hasTLS {
		return address{}, fmt.Errorf("the address %q is plain text, and there are options of TLS: try https://%s", text, authority)
	}
	place := net.JoinHostPort(host, port)
	return address{
		target:   "passthrough:///" + place,
		url:      scheme + "://" + place,
		isSecure: scheme == "https",
		isLocal:  isLoopback(host),
	}, nil
}

func isLoopback(host string) bool {
	ip, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && ip.Unmap().IsLoopback()
}
