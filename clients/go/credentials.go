package perennial

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"strings"
)

// WithTLS makes the connection by TLS, with a configuration of your own.
func WithTLS(config *tls.Config) Option {
	return func(o *options) error {
		o.tls = config.Clone()
		return nil
	}
}

// WithCA makes the connection by TLS, and trusts the authorities in a file of PEM instead of those of the system.
func WithCA(file string) Option {
	return func(o *options) error {
		pem, err := os.ReadFile(file)
		if err != nil {
			return fmt.Errorf("the authority: %w", err)
		}
		pool := x509.NewCertPool()
		if !pool.AppendCertsFromPEM(pem) {
			return fmt.Errorf("the authority: %s has no certificate in PEM", file)
		}
		o.tlsConfig().RootCAs = pool
		return nil
	}
}

// WithCertificate makes the connection by TLS, and shows the server a certificate, from two files of PEM. The files are
// read again for each connection, so that a certificate can be renewed.
func WithCertificate(certificate, key string) Option {
	return func(o *options) error {
		load := func() (*tls.Certificate, error) {
			pair, err := tls.LoadX509KeyPair(certificate, key)
			if err != nil {
				return nil, fmt.Errorf("the certificate: %w", err)
			}
			return &pair, nil
		}
		if _, err := load(); err != nil {
			return err
		}
		o.tlsConfig().GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return load() }
		return nil
	}
}

// WithToken sends a token with each call.
func WithToken(token string) Option {
	return WithTokenFunc(func(context.Context) (string, error) { return token, nil })
}

// WithTokenFile sends the token in a file with each call. The file is read for each call, so that the token can be
// renewed.
func WithTokenFile(file string) Option {
	return WithTokenFunc(func(context.Context) (string, error) {
		text, err := os.ReadFile(file)
		if err != nil {
			return "", fmt.Errorf("the token: %w", err)
		}
		return strings.TrimSpace(string(text)), nil
	})
}

// WithTokenFunc asks for the token before each call, also before each attempt of a stream.
func WithTokenFunc(token func(context.Context) (string, error)) Option {
	return func(o *options) error {
		o.token = token
		return nil
	}
}

// bearer sends the token. It is never part of an error.
type bearer struct {
	token func(context.Context) (string, error)
}

func (b bearer) GetRequestMetadata(ctx context.Context, _ ...string) (map[string]string, error) {
	token, err := b.token(ctx)
	if err != nil {
		return nil, err
	}
	isUnsendable := func(r rune) bool { return r <= ' ' || r > '~' }
	if token == "" || strings.ContainsFunc(token, isUnsendable) {
		return nil, errors.New("the token is empty or has characters that a header cannot have")
	}
	return map[string]string{"authorization": "Bearer " + token}, nil
}

// RequireTransportSecurity is false, because New has refused a token that would leave the machine in plain text.
func (bearer) RequireTransportSecurity() bool { return false }
