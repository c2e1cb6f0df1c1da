package usersfile

import "syscall"

const (
	getTermios = syscall.TCGETS
	setTermios = syscall.TCSETS
)

// The keys that stop the programs of a terminal, and what is there for none.
var stopKeys = []int{syscall.VSUSP}

const noKey = 0
