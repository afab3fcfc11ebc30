/* SPDX-License-Identifier: Apache-2.0 */
/* What cffi parses: plain declarations only. All functions return -1 and set errno on failure. */

int sc_open_tree(int dir, const char *path, unsigned int flags);
int sc_move_mount(int from, int to_dir, const char *to);
int sc_idmap_mount(int tree, int userns, int recursive);
int sc_unmount(const char *path);
int sc_mount_attributes(int dir, const char *path, uint64_t set, uint64_t propagation, int recursive);
int sc_new_mount(const char *type, const char *const *options, unsigned int attributes);
int sc_openat2(int dir, const char *path, uint64_t flags, uint64_t resolve);
int sc_unshare(int flags);
int sc_setns(int fd, int flags);
int sc_pivot_root(void);
int sc_set_ids(unsigned int uid, unsigned int gid);
int sc_set_fs_ids(unsigned int uid, unsigned int gid);
int sc_mount_layers(const char *name, const char *rootfs, const char *state_dir, unsigned int id_base, int userns,
                    const char **what);
int sc_userns(const char *uid_map, const char *gid_map);
int sc_core_cookie(int pid, uint64_t *cookie);
int sc_share_core_cookie(int source, int target);
int sc_netlink_in(int pidfd, int protocol, unsigned int groups);
int sc_syncfs(int fd);
int sc_get_project(int fd, uint32_t *project);
int sc_set_project(int fd, uint32_t project);
int sc_limits_projects(int fd);
int sc_project_quota(int fd, uint32_t project, uint64_t *used, uint64_t *limit);
int sc_limit_project(int fd, uint32_t project, uint64_t limit);
int sc_page_out(int pidfd, const uint64_t *ranges, size_t count);
