package etcd

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"flag"
	"fmt"
	"os"
	"strings"
	"unicode/utf8"

	"simple-oauth2/internal/keypair"
)

// Config says where etcd is, and how to log in to it. Endpoints are URLs separated
// by commas; CA, Cert and Key are PEM files, or empty. PasswordFile holds the
// password instead of Password, with or without a newline at the end; a byte order
// mark at its beginning does not count.
type Config struct {
	Endpoints      string
	Prefix         string
	CA, Cert, Key  string
	User, Password string
	PasswordFile   string
}

const defaultPrefix = "/simple-oauth2/"

// Flags adds the flags, which are read into c. User and password are read only
// from the environment: everybody on the machine can see a command line.
func (c *Config) Flags(flags *flag.FlagSet, getenv func(string) string) {
	flags.StringVar(&c.Endpoints, "etcd", "", "`URLs`, separated by commas, of the etcd members that store the tokens of all replicas;\nset user and password with OAUTH2_ETCD_USER and OAUTH2_ETCD_PASSWORD or\nOAUTH2_ETCD_PASSWORD_FILE, only in the environment")
	flags.StringVar(&c.Prefix, "etcd-prefix", defaultPrefix, "`prefix` of the keys in etcd")
	flags.StringVar(&c.CA, "etcd-ca", "", "PEM `file` of the CAs that may sign etcd's certificate (default the system's)")
	flags.StringVar(&c.Cert, "etcd-cert", "", "PEM `file` of the client certificate for etcd")
	flags.StringVar(&c.Key, "etcd-key", "", "PEM `file` of the client certificate's key")
	c.User, c.Password = getenv("OAUTH2_ETCD_USER"), getenv("OAUTH2_ETCD_PASSWORD")
	c.PasswordFile = getenv("OAUTH2_ETCD_PASSWORD_FILE")
}

// password reads the file each time, as its content may have changed.
func (c *Config) password() (string, error) {
	if c.PasswordFile == "" {
		return c.Password, nil
	}
	text, err := os.ReadFile(c.PasswordFile)
	if err != nil {
		return "", fmt.Errorf("OAUTH2_ETCD_PASSWORD_FILE: %w", err)
	}
	password := strings.TrimPrefix(strings.TrimSuffix(strings.TrimSuffix(string(text), "\n"), "\r"), "\ufeff")
	switch { // etcd would say no more than that it is wrong
	case password == "":
		return "", fmt.Errorf("OAUTH2_ETCD_PASSWORD_FILE: %s is empty", c.PasswordFile)
	case !utf8.ValidString(password):
		return "", fmt.Errorf("OAUTH2_ETCD_PASSWORD_FILE: %s is not UTF-8", c.PasswordFile)
	}
	return password, nil
}

// tls reads the files for the connections to etcd. Its error names the flag.
func (c *Config) tls() (*tls.Config, error) {
	config := &tls.Config{}
	if c.CA != "" {
		pem, err := keypair.ReadPEM(c.CA)
		if err != nil {
			return nil, fmt.Errorf("-etcd-ca: %w", err)
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("-etcd-ca: no certificate in %s", c.CA)
		}
	}
	if c.Cert != "" {
		certificate, err := keypair.Read(c.Cert, c.Key)
		if err != nil {
			return nil, fmt.Errorf("-etcd-cert %s and -etcd-key %s: %w", c.Cert, c.Key, err)
		}
		config.Certificates = []tls.Certificate{certificate}
	}
	return config, nil
}

// On says whether etcd is used.
func (c *Config) On() bool { return c.Endpoints != "" }

// Check returns an error if the flags do not go together.
func (c *Config) Check() error {
	switch {
	case (c.Cert == "") != (c.Key == ""):
		return errors.New("-etcd-cert and -etcd-key go together: give both or neither")
	case !c.On() && c.CA+c.Cert+c.User != "":
		return errors.New("-etcd-ca, -etcd-cert or OAUTH2_ETCD_USER is set, but -etcd is not")
	case !c.On() && c.Prefix != defaultPrefix:
		return errors.New("-etcd-prefix is set, but -etcd is not")
	case c.Password != "" && c.PasswordFile != "":
		return errors.New("OAUTH2_ETCD_PASSWORD and OAUTH2_ETCD_PASSWORD_FILE: set only one of them")
	case c.Password+c.PasswordFile != "" && c.User == "":
		return errors.New("OAUTH2_ETCD_PASSWORD or OAUTH2_ETCD_PASSWORD_FILE is set, but OAUTH2_ETCD_USER is not")
	case c.Password+c.PasswordFile == "" && c.User != "":
		return errors.New("OAUTH2_ETCD_USER is set, but neither OAUTH2_ETCD_PASSWORD nor OAUTH2_ETCD_PASSWORD_FILE is")
	}
	return nil
}
