package perennial_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	"perennial.dev"
	perennialv1 "perennial.dev/gen/perennial/v1"
)

// authority signs certificates, and writes each beside its key.
type authority struct {
	directory   string
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{directory: t.TempDir()}
	a.certificate = &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "an authority"}, IsCA: true,
		BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	a.sign(t, "ca", a.certificate)
	return a
}

// issue makes NAME.pem and NAME.key, and returns their paths.
func (a *authority) issue(t *testing.T, name string, usage x509.ExtKeyUsage) (string, string) {
	t.Helper()
	return a.sign(t, name, &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: name}, ExtKeyUsage: []x509.ExtKeyUsage{usage},
		DNSNames: []string{"localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	})
}

func (a *authority) sign(t *testing.T, name string, certificate *x509.Certificate) (string, string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	fatal(t, err)
	signer := a.key
	if signer == nil {
		a.key, signer = key, key
	}
	der, err := x509.CreateCertificate(rand.Reader, certificate, a.certificate, &key.PublicKey, signer)
	fatal(t, err)
	private, err := x509.MarshalPKCS8PrivateKey(key)
	fatal(t, err)
	return a.save(t, name+".pem", "CERTIFICATE", der), a.save(t, name+".key", "PRIVATE KEY", private)
}

func (a *authority) save(t *testing.T, name, kind string, der []byte) string {
	t.Helper()
	path := filepath.Join(a.directory, name)
	fatal(t, os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600))
	return path
}

func TestATokenIsSentByTLSAndARevokedOneEndsAStreamWithItsReason(t *testing.T) {
	ours := newAuthority(t)
	certificate, key := ours.issue(t, "server", x509.ExtKeyUsageServerAuth)
	rules, tokens := filepath.Join(ours.directory, "access.toml"), filepath.Join(ours.directory, "tokens.toml")
	fatal(t, os.WriteFile(rules, []byte("[[rule]]\nwho = [\"token:reader\"]\nmay = [\"read\"]\nfiles = [\"logs\"]\n"), 0o600))
	change := func(arguments ...string) string {
		t.Helper()
		output, err := exec.Command(program(), append([]string{"token", "--tokens", tokens}, arguments...)...).Output()
		fatal(t, err)
		return strings.TrimSpace(string(output))
	}
	token := change("new", "reader")
	server := startServer(t, "--tls-cert", certificate, "--tls-key", key, "--access", rules, "--tokens", tokens,
		"--reload-interval", "20ms")
	appendLines(t, server.path("a.log"), 0, 3)
	trusting := perennial.WithCA(filepath.Join(ours.directory, "ca.pem"))
	request := &perennialv1.ReadLinesRequest{Path: "logs/a.log", Follow: true}
	file := filepath.Join(ours.directory, "token")
	fatal(t, os.WriteFile(file, []byte(token+"\n"), 0o600))
	client := connect(t, "https://"+server.address, trusting, perennial.WithTokenFile(file))
	count, last := 0, error(nil)
	for _, err := range client.ReadLines(t.Context(), request) {
		if last = err; err != nil {
			break
		}
		if count++; count == 3 {
			change("revoke", "reader")
		}
	}
	for name, one := range map[string]struct {
		err    error
		reason perennialv1.ErrorReason
	}{
		"a stream whose token is revoked": {last, perennialv1.ErrorReason_CREDENTIALS_REVOKED},
		"no token":                        {first(t, server, trusting), perennialv1.ErrorReason_CREDENTIALS_MISSING},
		"an unknown token": {
			first(t, server, trusting, perennial.WithToken("perennial_"+strings.Repeat("0", 64))),
			perennialv1.ErrorReason_CREDENTIALS_INVALID,
		},
	} {
		fault, ok := errors.AsType[*perennial.Error](one.err)
		if !ok || fault.Reason != one.reason || fault.Code != codes.Unauthenticated || fault.CanRetry() {
			t.Errorf("%s: %v", name, one.err)
		}
	}
	if count != 3 {
		t.Errorf("%d lines", count)
	}
}

// first is the error of a stream that the server refuses.
func first(t *testing.T, server *server, options ...perennial.Option) error {
	t.Helper()
	client := connect(t, "https://"+server.address, options...)
	for _, err := range client.ReadLines(t.Context(), &perennialv1.ReadLinesRequest{Path: "logs/a.log"}) {
		return err
	}
	return nil
}

func TestTLSNeedsTrustOnBothSides(t *testing.T) {
	ours, theirs := newAuthority(t), newAuthority(t)
	certificate, key := ours.issue(t, "server", x509.ExtKeyUsageServerAuth)
	ca := filepath.Join(ours.directory, "ca.pem")
	server := startServer(t, "--tls-cert", certificate, "--tls-key", key, "--tls-client-ca", ca)
	appendLines(t, server.path("a.log"), 0, 3)
	clientCertificate, clientKey := ours.issue(t, "client", x509.ExtKeyUsageClientAuth)
	shown := perennial.WithCertificate(clientCertificate, clientKey)

	read := func(address string, options ...perennial.Option) (count int, last error) {
		for _, err := range connect(t, address, options...).ReadLines(
			t.Context(), &perennialv1.ReadLinesRequest{Path: "logs/a.log"}, perennial.WithConnectTimeout(2*time.Second),
		) {
			if last = err; err == nil {
				count++
			}
		}
		return count, last
	}
	if count, err := read("https://"+server.address, perennial.WithCA(ca), shown); count != 3 || err != nil {
		t.Errorf("%d lines, %v", count, err)
	}
	for name, options := range map[string][]perennial.Option{
		"another authority":     {perennial.WithCA(filepath.Join(theirs.directory, "ca.pem")), shown},
		"no client certificate": {perennial.WithCA(ca)},
	} {
		start := time.Now()
		_, err := read("https://"+server.address, options...)
		fault, ok := errors.AsType[*perennial.Error](err)
		if !ok || fault.CanRetry() || time.Since(start) > time.Second {
			t.Errorf("%s: %v, after %v", name, err, time.Since(start))
		}
	}
	if _, err := read("http://" + server.address); err == nil {
		t.Error("plain text was served")
	}
}
