/* SPDX-License-Identifier: Apache-2.0 */
/* Where things are. Folders in /run are made by data/tmpfiles.d/syscont.conf; see sysd.runtime.spec for the rest. */
#ifndef SYSCONT_PLACES_H
#define SYSCONT_PLACES_H

#define LAUNCH_DIR "/run/syscont/launch"
#define SHARE_PLACES LAUNCH_DIR "/devices"
#define HANDOVER_SOCKET "/run/syscont/handover"
#define PIN_DIR "/run/syscont/netns"
#define LENT_DIR "/run/syscont/lent"
#define FUNCTIONS_DIR "/run/syscont/functions"

#endif
