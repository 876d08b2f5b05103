// SPDX-License-Identifier: MPL-2.0

package vaulttest

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"
)

// tellsDialers says whether the owner of a connection can be found out.
const tellsDialers = true

// socketInode returns the inode of the TCP socket of this machine that is
// connected from one port to another, or an error if there is none.
func socketInode(local, remote int) (string, error) {
	var errs []error
	for _, table := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		inode, err := inodeIn(table, local, remote)
		if err == nil {
			return inode, nil
		}
		errs = append(errs, err)
	}
	return "", errors.Join(errs...)
}

// inodeIn looks for the socket in one of the kernel's tables. On loopback the
// two ports are enough to tell connections apart.
func inodeIn(table string, local, remote int) (string, error) {
	file, err := os.Open(table)
	if err != nil {
		return "", err
	}
	defer file.Close()
	from, to := fmt.Sprintf(":%04X", local), fmt.Sprintf(":%04X", remote)
	lines := bufio.NewScanner(file)
	for lines.Scan() {
		// "sl local_address rem_address st queues timer retrnsmt uid timeout inode …"
		fields := strings.Fields(lines.Text())
		// A closed socket that lingers has the inode 0.
		if len(fields) > 9 && strings.HasSuffix(fields[1], from) && strings.HasSuffix(fields[2], to) && fields[9] != "0" {
			return fields[9], nil
		}
	}
	if err := lines.Err(); err != nil {
		return "", err
	}
	return "", fmt.Errorf("%s has no connection from port %d to %d", table, local, remote)
}

// holdsSocket says whether a process has the socket with that inode open.
func holdsSocket(pid int, inode string) (bool, error) {
	dir := "/proc/" + strconv.Itoa(pid) + "/fd"
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil // it has just ended
	}
	if err != nil {
		return false, err
	}
	for _, entry := range entries {
		target, err := os.Readlink(dir + "/" + entry.Name())
		if err == nil && target == "socket:["+inode+"]" {
			return true, nil
		}
	}
	return false, nil
}
