package etcd

import (
	"errors"
	"flag"
)

// Config says where etcd is, and who asks. Endpoints are URLs separated by commas;
// CA, Cert and Key are PEM files, or empty.
type Config struct {
	Endpoints      string
	Prefix         string
	CA, Cert, Key  string
	User, Password string
}

// Flags adds the flags to be read into c. User and password are read from the
// environment alone: a command line is seen by everybody on the machine.
func (c *Config) Flags(flags *flag.FlagSet, getenv func(string) string) {
	flags.StringVar(&c.Endpoints, "etcd", "", "`URLs` of the etcd members, separated by commas, that keep the tokens for all replicas;\nits user and password are OAUTH2_ETCD_USER and OAUTH2_ETCD_PASSWORD, in the environment only")
	flags.StringVar(&c.Prefix, "etcd-prefix", "/simple-oauth2/", "`prefix` of the keys in etcd")
	flags.StringVar(&c.CA, "etcd-ca", "", "PEM `file` of the CAs that may sign etcd's certificate (default the system's)")
	flags.StringVar(&c.Cert, "etcd-cert", "", "PEM `file` of the client certificate for etcd")
	flags.StringVar(&c.Key, "etcd-key", "", "PEM `file` of the client certificate's key")
	c.User, c.Password = getenv("OAUTH2_ETCD_USER"), getenv("OAUTH2_ETCD_PASSWORD")
}

// On says whether there is an etcd.
func (c *Config) On() bool { return c.Endpoints != "" }

// Check says what in the flags does not go together.
func (c *Config) Check() error {
	switch {
	case (c.Cert == "") != (c.Key == ""):
		return errors.New("-etcd-cert and -etcd-key go together: give both or neither")
	case !c.On() && c.CA+c.Cert+c.User != "":
		return errors.New("-etcd-ca, -etcd-cert or OAUTH2_ETCD_USER is set, but -etcd is not")
	case c.On() && c.Prefix == "":
		return errors.New("-etcd-prefix must not be empty")
	}
	return nil
}
